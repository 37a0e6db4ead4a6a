//! Trained models to artifacts of the bulk engine: reads what scikit-learn (by ONNX), XGBoost and
//! LightGBM write, and turns it into a program for workers and predicates for data owners.
//!
//! * [`read`](mod@read): the one door for files; says what is a model of which library.
//! * [`trained`]: a trained model as all readers give it.
//! * [`invalid`]: what a trained model must be before anything is computed from it.
//! * [`interpret`]: what a trained model answers to a row in the clear.

pub mod interpret;
pub mod invalid;
mod lightgbm;
pub mod lower;
mod preorder;
pub mod read;
pub mod trained;
mod value_set;
mod xgboost;

pub use read::{Format, ReadError, read};
