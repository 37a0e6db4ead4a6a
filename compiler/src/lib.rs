//! Trained models to artifacts of the bulk engine: reads what scikit-learn (by ONNX), XGBoost and
//! LightGBM write, and turns it into a program for workers and predicates for data owners.
//!
//! * [`trained`]: a trained model as all readers give it.

pub mod trained;
