//! Trained models to artifacts of the bulk engine: reads what scikit-learn (by ONNX), XGBoost and
//! LightGBM write, and turns it into a program for workers and predicates for data owners.
//!
//! * [`compile`](mod@compile): the whole way from a trained model to the zips.
//! * [`read`](mod@read): the one door for files; says what is a model of which library.
//! * [`trained`]: a trained model as all readers give it.
//! * [`invalid`]: what a trained model must be before anything is computed from it.
//! * [`bins`]: which thresholds a data owner is offered; [`ranges`]: of linear models' features.
//! * [`lower`]: trees to polynomials.
//! * [`settle`](mod@settle): what a file does not say of its model; [`expected`]: what the library answers.
//! * [`report`]: what compiling found out.
//! * [`interpret`]: what a trained model answers to a row in the clear.

pub mod bins;
pub mod compile;
pub mod expected;
pub mod interpret;
pub mod invalid;
mod lightgbm;
mod linear;
pub mod lower;
mod onnx;
mod preorder;
pub mod ranges;
pub mod read;
mod reader;
pub mod report;
pub mod settle;
mod stream;
mod suspects;
pub mod trained;
mod value_set;
mod xgboost;

pub use bins::Bins;
pub use compile::{
    CompileError, CompileOptions, Compiled, LeftOut, Remark, RemarkKind, WantedForms, compile,
};
pub use ranges::{FeatureRange, parse_ranges};
pub use read::{Format, ReadError, ReadModel, Rounds, read, read_rounds};
pub use report::CompileReport;
