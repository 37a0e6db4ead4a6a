//! Models with several forms: which one rows take, keys of both in one file each, files of single rows.

use std::path::Path;
use std::sync::{Arc, Barrier};

use cipherscore_artifact::key_file::{evaluation_key_of, evaluation_keys_of};
use cipherscore_artifact::server::{Forms, open_server};
use cipherscore_common::{EvaluationKeyId, FormName};
use cipherscore_compiler::WantedForms;
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::key_folder::{KeyFolder, KeyFolderError};
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{
    ClientModel, Encryption, EncryptionError, Finality, FormChoice, encryption_in_form,
    model_in_form, read_rows_file, write_rows_file,
};

use crate::support::{Owner, compiled, made_up, make_keys};

const MODEL: &str = "lgb_binary";

fn rows(model: &dyn ClientModel, count: usize) -> Matrix<f64> {
    let width = model.interface().features.count();
    let value = |index: usize| f64::from(u32::try_from(index * 7919 % 1000).unwrap()) / 50.0 - 10.0;
    Matrix::new(width, (0..count * width).map(value).collect())
}

/// Evaluates a file of single rows.
fn evaluated(owner: &Owner, file: &[u8]) -> Vec<u8> {
    let file = read_rows_file(file).unwrap();
    let evaluator = owner.rows_evaluator.as_ref().unwrap();
    let key = owner.keys.evaluation_key(Some(FormName::Rows)).unwrap();
    let key = evaluator.prepare(key).unwrap();
    key.require_owner(file.owner).unwrap();
    let mut evaluation = Arc::clone(evaluator).begin(Some(Arc::new(key)), file.rows).unwrap();
    evaluation.push(file.body, &|| false).unwrap();
    let outputs = evaluation.finish(&|| false).unwrap();
    write_rows_file(file.rows as usize, file.owner, &outputs).unwrap()
}

fn chosen(model: &Arc<dyn ClientModel>, rows: u64) -> Option<FormName> {
    model_in_form(Arc::clone(model), FormChoice::Auto, rows).unwrap().it.form()
}

#[test]
fn few_rows_take_the_form_for_single_ones_and_many_the_other() {
    let owner = Owner::of_both(MODEL);
    assert_eq!(chosen(&owner.model, 1), Some(FormName::Rows));
    assert_eq!(chosen(&owner.model, 10_000), Some(FormName::Bulk));
    let all = (0..14).map(|log2| chosen(&owner.model, 1 << log2)).collect::<Vec<_>>();
    assert!(all.is_sorted_by_key(|form| *form == Some(FormName::Bulk)), "{all:?}");
    for form in FormName::ALL {
        let only = FormChoice::Only(form);
        let found = model_in_form(Arc::clone(&owner.model), only, 1).unwrap();
        assert_eq!(found.it.form(), Some(form));
        assert!(found.it.forms().is_empty());
        let found = encryption_in_form(owner.encryption(), only, 1).unwrap();
        assert_eq!(found.it.model().form(), Some(form));
    }
    let why = encryption_in_form(owner.encryption(), FormChoice::Auto, 1).unwrap().why.unwrap();
    assert!(why.starts_with("1 row takes about ") && why.contains(" in rows, about "), "{why}");
}

#[test]
fn a_form_that_there_is_not_is_refused_by_what_there_is() {
    for (wanted, form, other) in [
        (WantedForms::Bulk, FormName::Bulk, FormName::Rows),
        (WantedForms::Rows, FormName::Rows, FormName::Bulk),
    ] {
        let model = open_client(&compiled(MODEL, wanted).0).unwrap();
        for choice in [FormChoice::Auto, FormChoice::Only(form)] {
            let found = model_in_form(Arc::clone(&model), choice, 1).unwrap();
            assert_eq!((found.it.form(), found.why), (Some(form), None));
        }
        let refused = model_in_form(model, FormChoice::Only(other), 1);
        let said = refused.map(drop).unwrap_err().to_string();
        assert!(said.contains(&format!("only `{form}`")) && said.contains("--form both"), "{said}");
    }
}

#[test]
fn both_forms_have_the_same_integers() {
    let owner = Owner::of_both(MODEL);
    let rows = rows(&*owner.model, 20);
    let of_rows = owner.encryption_in(FormName::Rows);
    let file = of_rows.encrypt_file(&rows).unwrap();
    let integers = of_rows.decrypt_file(&evaluated(&owner, &file)).unwrap();

    let of_bulk = owner.encryption_in(FormName::Bulk);
    let payload = of_bulk.encrypt(&rows).unwrap();
    assert_eq!(payload.receipt, None);
    let key = owner.keys.evaluation_key(Some(FormName::Bulk)).unwrap();
    let key = Arc::new(owner.evaluator.prepare(key).unwrap());
    key.require_owner(of_bulk.owner()).unwrap();
    let mut evaluation = Arc::clone(&owner.evaluator).begin(Some(key), 20).unwrap();
    evaluation.push(&payload.body, &|| false).unwrap();
    let outputs = evaluation.finish(&|| false).unwrap();
    assert_eq!(of_bulk.decrypt(&outputs, 20, None).unwrap(), integers);
    // Who has not chosen decrypts either.
    let whole = owner.encryption();
    assert_eq!(whole.decrypt(&outputs, 20, None).unwrap(), integers);
    assert_eq!(
        whole.decrypt_file(&evaluated(&owner, &file)).map(drop).unwrap_err().to_string(),
        EncryptionError::AnsweredBefore.to_string()
    );
    assert_eq!(
        of_rows.model().scores(&integers.values()[..1]).unwrap(),
        of_bulk.model().scores(&integers.values()[..1]).unwrap()
    );
}

#[test]
fn keys_of_both_forms_are_one_file_each_with_ids_of_their_own() {
    let owner = Owner::of_both(MODEL);
    let file = owner.keys.evaluation_key_file().unwrap();
    let keys = evaluation_keys_of(&file).unwrap();
    assert_eq!(keys.iter().map(|(form, _)| *form).collect::<Vec<_>>(), FormName::ALL.map(Some));
    for (form, key) in keys {
        assert_eq!(owner.keys.evaluation_key(form).unwrap(), key);
        let (id, _) = owner.keys.digests(form).unwrap();
        assert_eq!(id, Some(EvaluationKeyId::of(key)));
    }
    // The bulk form alone has the engine's own file.
    let bulk = Owner::compiled(MODEL);
    let file = bulk.keys.evaluation_key_file().unwrap();
    assert!(file.starts_with(b"CSBULKPK"));
    assert_eq!(bulk.keys.evaluation_key(Some(FormName::Bulk)).unwrap(), file);
    assert_eq!(
        bulk.keys.digests(Some(FormName::Bulk)).unwrap().0,
        Some(EvaluationKeyId::of(&file))
    );
    assert!(!bulk.path("keys/rows.state").exists());
    let said = bulk.keys.evaluation_key(Some(FormName::Rows)).unwrap_err().to_string();
    assert!(said.contains("not for the form `rows`"), "{said}");
    let text = std::fs::read_to_string(bulk.path("keys/keys.json")).unwrap();
    assert!(!text.contains("sections"), "{text}");
}

/// Keys that were made before the model had a second form.
#[test]
fn keys_of_the_bulk_form_alone_are_for_it_whatever_else_the_model_has() {
    let old = open_client(&compiled(MODEL, WantedForms::Bulk).0).unwrap();
    let keys = old.make_keys(&|| ()).unwrap();
    let owner = Owner::of_both(MODEL);
    let opened = || Arc::clone(&owner.model).with_key(&keys.client).unwrap();
    for choice in [FormChoice::Auto, FormChoice::Only(FormName::Bulk)] {
        let found = encryption_in_form(opened(), choice, 1).unwrap().it;
        assert_eq!(found.model().form(), Some(FormName::Bulk));
        found.encrypt(&rows(&*owner.model, 1)).unwrap();
    }
    assert_eq!(opened().owner(), keys.owner);
    let said = |refused: Result<(), EncryptionError>| refused.unwrap_err().to_string();
    let only = FormChoice::Only(FormName::Rows);
    let chosen = said(encryption_in_form(opened(), only, 1).map(drop));
    let of_rows = model_in_form(Arc::clone(&owner.model), only, 1).unwrap().it;
    let alone = said(of_rows.with_key(&keys.client).map(drop));
    let file = owner.encryption_in(FormName::Rows).encrypt_file(&rows(&*owner.model, 1)).unwrap();
    let reply = said(opened().decrypt_file(&evaluated(&owner, &file)).map(drop));
    for said in [chosen, alone, reply] {
        assert!(said.contains("not for the form `rows`"), "{said}");
    }
}

fn forms(zip: &[u8]) -> Forms {
    open_server(zip, None, std::num::NonZeroUsize::MIN).unwrap()
}

/// Sections that stand in each other's place, or are another owner's.
#[test]
fn keys_that_do_not_belong_together_are_refused() {
    let (client, server) = compiled(MODEL, WantedForms::Both);
    let (model, forms) = (open_client(&client).unwrap(), forms(&server));
    let [one, other] = [(); 2].map(|()| model.make_keys(&|| ()).unwrap());
    // Lengths of the sections stand behind their forms.
    let bounds = |file: &[u8]| {
        let length = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
        let first = usize::try_from(length(36)).unwrap();
        (56, 56 + first)
    };
    let file = one.evaluation.clone().unwrap();
    let (first, second) = bounds(&file);
    let spliced = |secret: &[u8], bulk: &[u8], rows: &[u8]| {
        let mut spliced = secret[..56].to_vec();
        spliced[36..44].copy_from_slice(&(bulk.len() as u64).to_le_bytes());
        spliced[48..56].copy_from_slice(&(rows.len() as u64).to_le_bytes());
        [&spliced[..], bulk, rows].concat()
    };
    let (bulk, rows) = (&file[first..second], &file[second..]);
    assert_eq!(spliced(&file, bulk, rows), file);

    // Evaluation keys in each other's place.
    let swapped = spliced(&file, rows, bulk);
    assert!(evaluation_key_of(&swapped, Some(FormName::Bulk)).is_err());
    let evaluator = &forms.get(Some(FormName::Rows)).unwrap().evaluator;
    let key = evaluation_key_of(&swapped, Some(FormName::Rows)).unwrap();
    assert!(evaluator.prepare(key.to_vec()).is_err());

    // Secrets in each other's place, or of another owner.
    let (secret, of_other) = (&one.client, &other.client);
    let (first, second) = bounds(secret);
    let (bulk, rows) = (&secret[first..second], &secret[second..]);
    let open = |key: &[u8]| Arc::clone(&model).with_key(key).map(drop);
    open(secret).unwrap();
    open(&spliced(secret, bulk, rows)).unwrap();
    assert!(open(&spliced(secret, rows, bulk)).is_err());
    let other_bulk = open(&spliced(secret, &of_other[first..second], rows)).unwrap_err();
    assert!(other_bulk.to_string().contains("a secret of another"), "{other_bulk}");
    for length in (0..secret.len()).step_by(97).chain([secret.len() - 1]) {
        assert!(open(&secret[..length]).is_err(), "{length}");
    }
    let longer = [&secret[..], &[0]].concat();
    assert!(open(&longer).is_err());

    // Rows of one owner do not take the other's key.
    let encryption = Arc::clone(&model).with_key(secret).unwrap();
    let only = FormChoice::Only(FormName::Rows);
    let encryption = encryption_in_form(encryption, only, 1).unwrap().it;
    let payload = encryption.encrypt(&self::rows(&*model, 1)).unwrap();
    let of_other = other.evaluation.unwrap();
    let key = evaluation_key_of(&of_other, Some(FormName::Rows)).unwrap();
    let key = Arc::new(evaluator.prepare(key.to_vec()).unwrap());
    let mut evaluation = Arc::clone(evaluator).begin(Some(key), 1).unwrap();
    let pushed = evaluation.push(&payload.body, &|| false);
    assert!(pushed.and_then(|()| evaluation.finish(&|| false)).is_err());
}

/// Bad replies that the key folder has counted.
fn bad_replies(folder: &Path) -> u64 {
    let text = std::fs::read_to_string(folder.join("rows.state")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    state["bad_replies"].as_u64().unwrap()
}

#[test]
fn replies_in_files_are_those_to_what_the_folder_has_encrypted() {
    let owner = Owner::of_both(MODEL);
    let encrypt = || {
        let encryption = owner.encryption_in(FormName::Rows);
        encryption.encrypt_file(&rows(&*owner.model, 2)).unwrap()
    };
    let decrypt = |file: &[u8]| owner.encryption().decrypt_file(file);
    let file = encrypt();
    let reply = evaluated(&owner, &file);
    let integers = decrypt(&reply).unwrap();
    // The same once more tells nothing new.
    assert_eq!(decrypt(&reply).unwrap(), integers);
    let refused = decrypt(&evaluated(&owner, &file));
    assert!(matches!(refused, Err(EncryptionError::AnsweredBefore)));

    // Rows that went out in a job, and not in a file.
    let sent = owner.encryption_in(FormName::Rows).encrypt(&rows(&*owner.model, 2)).unwrap();
    let sent = write_rows_file(2, owner.encryption().owner(), &sent.body).unwrap();
    let refused = decrypt(&evaluated(&owner, &sent));
    assert!(matches!(refused, Err(EncryptionError::UnknownUpload)));
    // A file of another owner.
    let other = Owner::of_both(MODEL);
    let refused = other.encryption().decrypt_file(&reply);
    assert!(matches!(refused, Err(EncryptionError::OtherOwner { .. })));
    // Uploads are no replies, and neither is what was damaged; nothing of it counts.
    let mut damaged = evaluated(&owner, &encrypt());
    *damaged.last_mut().unwrap() ^= 1;
    for wrong in [&file, &damaged] {
        assert!(matches!(decrypt(wrong), Err(EncryptionError::Engine(_))));
    }
    assert_eq!(bad_replies(&owner.path("keys")), 0);
}

/// Two processes, or two threads of one.
#[test]
fn of_several_replies_at_the_same_time_one_is_decrypted() {
    let owner = Owner::of_both(MODEL);
    let file = owner.encryption_in(FormName::Rows).encrypt_file(&rows(&*owner.model, 2)).unwrap();
    let replies: Vec<_> = (0..4).map(|_| (owner.encryption(), evaluated(&owner, &file))).collect();
    let together = Barrier::new(replies.len());
    let decrypted: Vec<_> = std::thread::scope(|scope| {
        let decrypt = replies.iter().map(|(encryption, reply)| {
            scope.spawn(|| {
                together.wait();
                encryption.decrypt_file(reply)
            })
        });
        let threads: Vec<_> = decrypt.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(decrypted.iter().filter(|it| it.is_ok()).count(), 1);
    for refused in decrypted.iter().filter_map(|it| it.as_ref().err()) {
        assert!(matches!(refused, EncryptionError::AnsweredBefore), "{refused}");
    }
}

/// Another process replaces the keys of the folder while this one has the old secret.
#[test]
fn keys_that_are_replaced_are_not_used_with_the_secret_before_them() {
    let owner = Owner::of_both(MODEL);
    owner.encryption();
    let new = owner.model.make_keys(&|| ()).unwrap();
    KeyFolder::new(owner.path("keys")).rotate(&new, None).unwrap();
    let form = Some(FormName::Rows);
    let digests = owner.keys.digests(form).map(drop);
    let key = owner.keys.evaluation_key(form).map(drop);
    for refused in [digests, key, owner.keys.evaluation_key_file().map(drop)] {
        assert!(matches!(refused, Err(KeyFolderError::Replaced(_))), "{refused:?}");
    }
    // Who opens the new secret has its keys.
    owner.encryption();
    assert_eq!(owner.keys.evaluation_key_file().unwrap(), new.evaluation.unwrap());
}

/// A reply that somebody made up.
fn made_up_file(reply: &[u8]) -> Vec<u8> {
    let file = read_rows_file(reply).unwrap();
    write_rows_file(file.rows as usize, file.owner, &made_up(file.body.to_vec())).unwrap()
}

#[test]
fn a_key_is_burned_by_bad_replies_and_replaced() {
    let owner = Owner::of_both(MODEL);
    let folder = owner.path("keys");
    let input = rows(&*owner.model, 1);
    let encrypt = || owner.encryption_in(FormName::Rows).encrypt_file(&input);
    let (good, waiting) = (encrypt().unwrap(), encrypt().unwrap());
    for bad in 1..=8 {
        let reply = made_up_file(&evaluated(&owner, &encrypt().unwrap()));
        // A process each, and the same again counts once.
        for _ in 0..2 {
            let refused = owner.encryption().decrypt_file(&reply).map(drop).unwrap_err();
            assert!(matches!(refused, EncryptionError::BadReply(_)), "{refused}");
            assert_eq!(refused.finality(), Some(Finality::BadReply));
            assert_eq!(bad_replies(&folder), bad);
        }
    }
    let said = encrypt().unwrap_err().to_string();
    assert!(said.contains("burned") && said.contains("keygen --rotate"), "{said}");
    let refused = owner.encryption().decrypt_file(&evaluated(&owner, &good)).unwrap_err();
    assert!(matches!(refused, EncryptionError::Burned { .. }), "{refused}");
    // The other form has a secret of its own.
    owner.encryption_in(FormName::Bulk).encrypt(&input).unwrap();

    let old = evaluated(&owner, &waiting);
    let new = owner.model.make_keys(&|| ()).unwrap();
    let retired = owner.keys.rotate(&new, None).unwrap();
    let file = encrypt().unwrap();
    owner.encryption().decrypt_file(&evaluated(&owner, &file)).unwrap();
    assert_eq!((bad_replies(&folder), bad_replies(&retired)), (0, 8));
    let encryption = KeyFolder::new(&retired);
    let encryption = encryption.encryption(Arc::clone(&owner.model), || Ok(None)).unwrap();
    assert!(matches!(encryption.decrypt_file(&old), Err(EncryptionError::Burned { .. })));
}

#[test]
fn what_was_on_its_way_is_decrypted_by_retired_keys() {
    let owner = Owner::of_both(MODEL);
    let file = owner.encryption_in(FormName::Rows).encrypt_file(&rows(&*owner.model, 3)).unwrap();
    let reply = evaluated(&owner, &file);
    let retired = owner.keys.rotate(&owner.model.make_keys(&|| ()).unwrap(), None).unwrap();
    assert!(matches!(
        owner.encryption().decrypt_file(&reply),
        Err(EncryptionError::OtherOwner { .. })
    ));
    let retired = KeyFolder::new(retired).encryption(Arc::clone(&owner.model), || Ok(None));
    assert_eq!(retired.unwrap().decrypt_file(&reply).unwrap().len(), 3);
}

#[test]
fn keys_without_their_counts_are_no_new_keys() {
    let owner = Owner::of_both(MODEL);
    let input = rows(&*owner.model, 1);
    std::fs::remove_file(owner.path("keys/rows.state")).unwrap();
    let refused = owner.encryption_in(FormName::Rows).encrypt(&input).map(drop).unwrap_err();
    assert!(matches!(refused, EncryptionError::KeyLog(_)), "{refused}");
    assert!(refused.to_string().contains("keygen --rotate"), "{refused}");
    owner.encryption_in(FormName::Bulk).encrypt(&input).unwrap();
}

#[test]
fn keys_in_memory_are_counted_there() {
    let owner = Owner::of_both(MODEL);
    let keys = owner.model.make_keys(&|| ()).unwrap();
    let encryption = Arc::clone(&owner.model).with_key(&keys.client).unwrap();
    let only = FormChoice::Only(FormName::Rows);
    let encryption = encryption_in_form(encryption, only, 1).unwrap().it;
    let input = rows(&*owner.model, 1);
    let evaluator = owner.rows_evaluator.as_ref().unwrap();
    let file = keys.evaluation.unwrap();
    let key = evaluation_key_of(&file, Some(FormName::Rows)).unwrap();
    let key = Arc::new(evaluator.prepare(key.to_vec()).unwrap());
    let evaluate = |encryption: &dyn Encryption| {
        let sent = encryption.encrypt(&input)?;
        let mut evaluation = Arc::clone(evaluator).begin(Some(Arc::clone(&key)), 1).unwrap();
        evaluation.push(&sent.body, &|| false).unwrap();
        Ok::<_, EncryptionError>((evaluation.finish(&|| false).unwrap(), sent.receipt))
    };
    let (reply, receipt) = evaluate(&*encryption).unwrap();
    encryption.decrypt(&reply, 1, receipt).unwrap();
    let (_, other) = evaluate(&*encryption).unwrap();
    assert!(matches!(encryption.decrypt(&reply, 1, other), Err(EncryptionError::Engine(_))));
    assert!(matches!(encryption.decrypt(&reply, 1, None), Err(EncryptionError::NoReceipt)));
    for _ in 0..8 {
        let (reply, receipt) = evaluate(&*encryption).unwrap();
        let refused = encryption.decrypt(&made_up(reply), 1, receipt);
        assert!(matches!(refused, Err(EncryptionError::BadReply(_))));
    }
    assert!(matches!(evaluate(&*encryption), Err(EncryptionError::Burned { .. })));
}

#[test]
fn the_same_keys_are_opened_by_each_form_alone() {
    let owner = Owner::of_both(MODEL);
    assert!(!owner.model.forms().is_empty());
    let single = make_keys(
        &*model_in_form(Arc::clone(&owner.model), FormChoice::Only(FormName::Bulk), 1).unwrap().it,
        &owner.path("bulk keys"),
    );
    // A model with both forms opens keys of one, for that form.
    let opened = single.encryption(Arc::clone(&owner.model), || Ok(None)).unwrap();
    let rows = FormChoice::Only(FormName::Rows);
    let refused = encryption_in_form(Arc::clone(&opened), rows, 1).map(drop).unwrap_err();
    assert!(refused.to_string().contains("rows"), "{refused}");
    let chosen = encryption_in_form(opened, FormChoice::Auto, 1).unwrap().it;
    assert_eq!(chosen.model().form(), Some(FormName::Bulk));
    let bulk = model_in_form(Arc::clone(&owner.model), FormChoice::Only(FormName::Bulk), 1);
    single.encryption(bulk.unwrap().it, || Ok(None)).unwrap();
}
