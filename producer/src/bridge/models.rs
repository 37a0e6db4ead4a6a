//! Models, each with its keys, and which of them scores an event.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::secrecy::SecretString;
use cipherscore_artifact::client_zip::open_client;
use cipherscore_artifact::server::ServerZip;
use cipherscore_common::{Digest, FormName, ModelId};
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use serde_json::Value;
use thiserror::Error;

use super::file_marks::FileMarks;
use super::paths;
use super::record::{DeadCode, DeadReason};
use super::settings::ModelSection;
use crate::evaluation_keys::KeySource;
use crate::files::read_bounded;
use crate::key_folder::{KeyFolder, KeyFolderError};
use crate::matrix::Matrix;
use crate::model::{
    ClientModel, Encryption, EncryptionError, FormChoice, InputFeature, encryption_in_form,
};
use crate::rows::{CategoryFields, Field, MissingMarks};
use crate::stream::Target;

/// Asks for the passphrase of client keys; it is asked again when keys are read again.
pub type Passphrase = Arc<dyn Fn() -> io::Result<Option<SecretString>> + Send + Sync>;

/// Why a model cannot be used.
#[derive(Debug, Error)]
#[error("model {name}: {reason}")]
pub struct UnusableModel {
    /// Its name in the configuration.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A model in one form.
pub(super) struct Form {
    pub(super) encryption: Arc<dyn Encryption>,
    pub(super) target: Target,
    /// Rows of a job, at most.
    pub(super) max_rows: usize,
}

/// Where a feature is in an event.
struct FeaturePath {
    name: String,
    path: String,
    may_be_missing: bool,
    /// How its values are read, where they are categories with names.
    categories: Option<Field>,
}

/// What events are scored with, until one of its files changes.
pub(super) struct Model {
    pub(super) name: String,
    pub(super) id: ModelId,
    pub(super) labels: Vec<String>,
    whole: Arc<dyn Encryption>,
    /// At least one.
    forms: Vec<Form>,
    features: Vec<FeaturePath>,
    stamp: Stamp,
}

/// What the files say: another one means another model, or other keys.
#[derive(PartialEq, Eq)]
pub(super) struct Stamp {
    client_zip: Digest,
    /// None where there is no such file.
    server_zip: Option<Digest>,
    client_key: Digest,
}

impl Stamp {
    fn of(client_zip: &[u8], server_zip: Option<&[u8]>, client_key: Digest) -> Self {
        let (client_zip, server_zip) = (Digest::of(client_zip), server_zip.map(Digest::of));
        Self { client_zip, server_zip, client_key }
    }

    /// Of what is there now. Zips are not read whose `marks` say that they are those of `before`.
    pub(super) fn read(
        section: &ModelSection,
        before: &Self,
        marks: &mut FileMarks,
    ) -> Result<Self, UnusableModel> {
        let named = |reason| UnusableModel { name: section.name.clone(), reason };
        let keys = KeyFolder::new(&section.keys).digests(None);
        let (_, client_key) = keys.map_err(|error| named(error.to_string()))?;
        let found = FileMarks::of([&client_zip(section), &server_zip(section)]);
        if found.are_those_of(marks) {
            let Self { client_zip, server_zip, .. } = *before;
            return Ok(Self { client_zip, server_zip, client_key });
        }
        let zip = read_zip(&client_zip(section)).map_err(named)?;
        let server_zip = read_server(section).map_err(named)?;
        let read = Self::of(&zip, server_zip.as_deref(), client_key);
        if (read.client_zip, read.server_zip) == (before.client_zip, before.server_zip) {
            *marks = found;
        }
        Ok(read)
    }
}

fn client_zip(section: &ModelSection) -> PathBuf {
    section.artifact.join("client.zip")
}

fn server_zip(section: &ModelSection) -> PathBuf {
    section.artifact.join("server.zip")
}

/// `server.zip`, where there is one.
fn read_server(section: &ModelSection) -> Result<Option<Vec<u8>>, String> {
    let path = server_zip(section);
    let is_there = path.try_exists().map_err(|error| format!("{}: {error}", path.display()))?;
    is_there.then(|| read_zip(&path)).transpose()
}

fn read_zip(path: &Path) -> Result<Vec<u8>, String> {
    read_bounded(path, MAX_ZIP_BYTES).map_err(|error| format!("{}: {error}", path.display()))
}

impl Model {
    pub(super) fn open(
        section: &ModelSection,
        passphrase: &Passphrase,
    ) -> Result<Self, UnusableModel> {
        let named = |reason: String| UnusableModel { name: section.name.clone(), reason };
        let zip = read_zip(&client_zip(section)).map_err(named)?;
        let client = open_client(&zip).map_err(|error| named(error.to_string()))?;
        let server_zip = read_server(section).map_err(named)?;
        let id = model_id(section, &*client, server_zip.as_deref()).map_err(named)?;
        let features = features(section, &*client).map_err(named)?;
        let classes = client.interface().scores;
        if !section.labels.is_empty() && section.labels.len() != classes {
            let labels = section.labels.len();
            return Err(named(format!("{labels} labels, where it has {classes} scores")));
        }
        let keys = KeyFolder::new(&section.keys);
        let in_keys = |error: KeyFolderError| named(error.to_string());
        let whole = keys.encryption(client, || passphrase()).map_err(in_keys)?;
        let (_, client_key) = keys.digests(None).map_err(in_keys)?;
        let stamp = Stamp::of(&zip, server_zip.as_deref(), client_key);
        let forms = forms(section.form, &whole, id, &keys).map_err(named)?;
        let (name, labels) = (section.name.clone(), section.labels.clone());
        Ok(Self { name, id, labels, whole, forms, features, stamp })
    }

    pub(super) fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Whether rows that were made for another one are rows of this: only the keys differ, if anything.
    pub(super) fn takes_rows_of(&self, other: &Self) -> bool {
        self.id == other.id && self.stamp.client_zip == other.stamp.client_zip
    }

    /// What anybody with its zip can do.
    pub(super) fn client(&self) -> &dyn ClientModel {
        self.whole.model()
    }

    pub(super) fn forms(&self) -> &[Form] {
        &self.forms
    }

    /// Rows that are gathered for a job, at most: those of its widest form.
    pub(super) fn max_rows(&self) -> usize {
        self.forms.iter().map(|form| form.max_rows).max().unwrap_or(1)
    }

    /// The form in which so many rows cost less.
    pub(super) fn form_for(&self, rows: usize) -> &Form {
        let weight =
            |form: &Form| form.encryption.model().cost(rows as u64).map(|cost| cost.weight());
        let cheaper = |best, form| match (weight(best), weight(form)) {
            (Some(least), Some(this)) if this >= least => best,
            (_, Some(_)) => form,
            (_, None) => best,
        };
        self.forms[1..].iter().fold(&self.forms[0], cheaper)
    }

    /// The form of this name, if it has any other.
    pub(super) fn form(&self, name: Option<FormName>) -> &Form {
        self.forms.iter().find(|form| form.target.form == name).unwrap_or(&self.forms[0])
    }

    /// The features of an event, in the model's order.
    pub(super) fn row(
        &self,
        data: &Value,
        absent_is_missing: bool,
    ) -> Result<Vec<f64>, DeadReason> {
        let number = |feature: &FeaturePath| {
            let FeaturePath { name, path, may_be_missing, categories } = feature;
            match data.pointer(path) {
                Some(value) if categories.is_some() && !value.is_null() => {
                    category(categories.as_ref(), value).ok_or_else(|| {
                        format!("feature {name}, at {path}, is none of its categories")
                    })
                }
                Some(Value::Number(number)) => {
                    number.as_f64().ok_or_else(|| format!("feature {name} is no number here"))
                }
                Some(Value::Null) if *may_be_missing => Ok(f64::NAN),
                None if *may_be_missing && absent_is_missing => Ok(f64::NAN),
                Some(_) => Err(format!("feature {name}, at {path}, is no number")),
                None => Err(format!("there is no feature {name}, at {path}")),
            }
        };
        let row: Result<Vec<_>, _> = self.features.iter().map(number).collect();
        let row = row.map_err(|text| DeadReason::new(DeadCode::Unreadable, text))?;
        let checked = self.client().check(&Matrix::new(row.len(), row.clone()), 1);
        let out_of_range =
            |error: EncryptionError| DeadReason::new(DeadCode::OutOfRange, error.to_string());
        checked.map(|()| row).map_err(out_of_range)
    }
}

/// The code of a category by its name, which JSON has as a text, a number or a truth value.
fn category(categories: Option<&Field>, value: &Value) -> Option<f64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => return None,
    };
    categories?.value(&text).ok()
}

/// Both zips must be of one model: while they are copied, one is of another.
fn model_id(
    section: &ModelSection,
    client: &dyn ClientModel,
    zip: Option<&[u8]>,
) -> Result<ModelId, String> {
    let path = server_zip(section);
    let said = client.model_id().or(section.model);
    let found = match zip {
        None => None,
        Some(zip) => {
            if !client.fits(zip).map_err(|error| format!("{}: {error}", path.display()))? {
                return Err("client.zip and server.zip are not of one model".into());
            }
            let server = ServerZip::read(zip).map_err(|error| error.to_string())?;
            Some(server.model_id().map_err(|error| error.to_string())?)
        }
    };
    let id = said.or(found).ok_or_else(|| {
        format!("which model? There is no {}; name it by `model`", path.display())
    })?;
    let others = [section.model, found].into_iter().flatten();
    match others.into_iter().all(|other| other == id) {
        true => Ok(id),
        false => Err("client.zip, server.zip and `model` are of different models".into()),
    }
}

fn features(section: &ModelSection, client: &dyn ClientModel) -> Result<Vec<FeaturePath>, String> {
    let features = &client.interface().features;
    let is_known = |name: &String| features.iter().any(|feature| feature.name == *name);
    for (name, path) in &section.features {
        paths::require(path)?;
        if !is_known(name) {
            return Err(format!("there is no feature {name:?}, for which `features` has a path"));
        }
    }
    let path =
        |name: &String| section.features.get(name).cloned().unwrap_or_else(|| paths::of_name(name));
    let texts = features.missing().to_vec();
    let marks = Arc::new(MissingMarks { texts, ..MissingMarks::default() });
    let categories = |feature: &InputFeature| {
        let field = || Field::of(feature, CategoryFields::Names, Arc::clone(&marks));
        feature.categories.is_some().then(field)
    };
    let feature = features.iter().map(|feature| FeaturePath {
        categories: categories(feature),
        path: path(&feature.name),
        name: feature.name.clone(),
        may_be_missing: feature.may_be_missing,
    });
    Ok(feature.collect())
}

/// Each form that may be chosen.
fn forms(
    choice: FormChoice,
    whole: &Arc<dyn Encryption>,
    model_id: ModelId,
    keys: &KeyFolder,
) -> Result<Vec<Form>, String> {
    let wanted = match (choice, whole.forms()) {
        (FormChoice::Auto, forms) if !forms.is_empty() => forms,
        _ => {
            let chosen = encryption_in_form(Arc::clone(whole), choice, 1);
            vec![chosen.map_err(|error| error.to_string())?.it]
        }
    };
    let form = |encryption: Arc<dyn Encryption>| {
        let model = encryption.model();
        let form: Option<FormName> = model.form();
        let key = match model.interface().needs_key {
            false => None,
            true => {
                let (id, _) = keys.digests(form).map_err(|error| error.to_string())?;
                let id = id.ok_or_else(|| keys.no_evaluation_key().to_string())?;
                Some((id, KeySource::Folder(keys.clone(), form)))
            }
        };
        let max_rows = usize::try_from(model.rows_per_job(None).get()).unwrap_or(1);
        Ok(Form { target: Target { model_id, form, key }, max_rows, encryption })
    };
    wanted.into_iter().map(form).collect()
}
