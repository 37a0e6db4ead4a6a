//! Bytes of one exchange between the real `FHEModelClient` and `FHEModelServer`.
//!
//! Keys and ciphertexts are Concrete's; what we write must be readable by it, so the same
//! content must give the same bytes up to the layout of Cap'n Proto segments. That is tested by
//! comparing canonical forms.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod cases;

use cases::Case;
use cipherscore_concrete::concrete_capnp::{keyset, value};
use cipherscore_concrete::message::ConcreteMessage;
use cipherscore_concrete::values::{read_value, write_value};
use cipherscore_concrete::{WireError, keys};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluation_keys::EvaluationKeys;
use cipherscore_engine::parameters::Compression;
use zeroize::Zeroizing;

fn golden() -> Vec<Case> {
    let cases: Vec<_> =
        cases::all().into_iter().filter(|case| case.folder.join("golden").exists()).collect();
    assert_eq!(cases.len(), 2);
    cases
}

/// The real client's secret keys, out of its complete keyset.
fn client_keys(case: &Case) -> ClientKeys {
    let bytes = case.read("golden/secret_keys.bin");
    let message =
        capnp::serialize::read_message(bytes.as_slice(), capnp::message::ReaderOptions::new())
            .unwrap();
    let keyset: keyset::Reader<'_> = message.get_root().unwrap();
    let list = keyset.get_client().unwrap().get_lwe_secret_keys().unwrap();
    let words = list.iter().map(|key| {
        let bytes = key.get_payload().unwrap().get_data().unwrap().get(0).unwrap();
        let chunks = bytes.chunks_exact(8);
        Zeroizing::new(chunks.map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect())
    });
    ClientKeys::from_words(words.collect(), case.client().keyset()).unwrap()
}

/// A value's content, whatever its segments.
fn canonical(bytes: &[u8]) -> Vec<u8> {
    let options = capnp::message::ReaderOptions::new();
    let message = capnp::serialize::read_message(bytes, options).unwrap();
    let value: value::Reader<'_> = message.get_root().unwrap();
    let one_segment = capnp::message::HeapAllocator::new()
        .first_segment_words(u32::try_from(bytes.len() / 8 + 64).unwrap());
    let mut copy = capnp::message::Builder::new(one_segment);
    copy.set_root_canonical(value).unwrap();
    capnp::serialize::write_message_to_words(&copy)
}

/// Of the real client, and of ours, which writes more segments.
#[test]
fn messages_are_told_from_each_other() {
    for case in golden() {
        for file in ["input", "result"] {
            assert_eq!(
                ConcreteMessage::of(&case.read(&format!("golden/{file}.bin"))),
                Some(ConcreteMessage::Value)
            );
        }
        let keys = case.read("golden/evaluation_keys.bin");
        assert_eq!(ConcreteMessage::of(&keys), Some(ConcreteMessage::EvaluationKeys));
        let (client, keyset) = (client_keys(&case), case.client().keyset().clone());
        let secret = keys::write_client_keys(&client);
        assert_eq!(ConcreteMessage::of(&secret), Some(ConcreteMessage::ClientKeys));
        let evaluation = client.evaluation_keys(&keyset, &|| ()).unwrap();
        let written = keys::write_evaluation_keys(&evaluation, &keyset);
        assert_eq!(ConcreteMessage::of(&written), Some(ConcreteMessage::EvaluationKeys));
        for end in 0..64.min(keys.len()) {
            ConcreteMessage::of(&keys[..end]);
        }
    }
    assert_eq!(ConcreteMessage::of(b""), None);
    assert_eq!(ConcreteMessage::of(&[0xff; 64]), None);
}

#[test]
fn ciphertexts_of_the_real_client_decrypt_to_its_integers() {
    for case in golden() {
        let client = case.client();
        let input = read_value(client.input(), &case.read("golden/input.bin")).unwrap();
        let integers = client_keys(&case).decrypt(&input, client.input()).unwrap();
        assert_eq!(integers, case.expected().quantized[0], "{}", case.name);
    }
}

#[test]
fn results_of_the_real_server_decrypt_to_its_integers() {
    for case in golden() {
        let client = case.client();
        let result = read_value(client.output(), &case.read("golden/result.bin")).unwrap();
        let integers = client_keys(&case).decrypt(&result, client.output()).unwrap();
        assert_eq!(integers, case.expected().outputs[0], "{}", case.name);
    }
}

#[test]
fn what_we_write_has_the_content_that_concrete_writes() {
    for case in golden() {
        let client = case.client();
        let theirs = case.read("golden/result.bin");
        let words = read_value(client.output(), &theirs).unwrap();
        let ours = write_value(client.output(), Compression::None, words.words());
        assert_eq!(canonical(&ours), canonical(&theirs), "{}", case.name);

        // Seeded: the payload is what was encrypted, so it is taken from the real bytes.
        let theirs = case.read("golden/input.bin");
        let options = capnp::message::ReaderOptions::new();
        let message = capnp::serialize::read_message(theirs.as_slice(), options).unwrap();
        let value: value::Reader<'_> = message.get_root().unwrap();
        let payload = value.get_payload().unwrap().get_data().unwrap().get(0).unwrap();
        let words: Vec<u64> =
            payload.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect();
        let ours = write_value(client.input(), Compression::Seed, &words);
        assert_eq!(canonical(&ours), canonical(&theirs), "{}", case.name);
    }
}

#[test]
fn evaluation_keys_of_a_linear_model_are_64_bytes_as_concretes() {
    for case in golden() {
        let client = case.client();
        let theirs = case.read("golden/evaluation_keys.bin");
        assert_eq!(theirs.len(), 64);
        let keys = keys::read_evaluation_keys(&theirs, client.keyset()).unwrap();
        assert_eq!(keys, EvaluationKeys::default());
        assert_eq!(keys::write_evaluation_keys(&keys, client.keyset()), theirs);
    }
}

#[test]
fn client_keys_are_read_back() {
    for case in golden() {
        let client = case.client();
        let keys = client_keys(&case);
        let bytes = keys::write_client_keys(&keys);
        let read = keys::read_client_keys(&bytes, client.keyset()).unwrap();
        assert!(keys.words().eq(read.words()), "{}", case.name);
    }
}

/// One way to spoil a message, and what is said about it.
type Spoiler = (fn(&mut Vec<u8>), &'static str);

#[test]
fn hostile_values_are_refused() {
    let case = &golden()[0];
    let client = case.client();
    let bytes = case.read("golden/input.bin");
    let spoilers: [Spoiler; 4] = [
        (|b| b.truncate(40), "not readable as Cap'n Proto"),
        (|b| b.clear(), "not readable as Cap'n Proto"),
        (|b| b.push(0), "length in bytes"),
        // A root pointer far outside its segment.
        (|b| b[16..24].copy_from_slice(&0x0000_0003_7fff_fff0u64.to_le_bytes()), "not readable"),
    ];
    for (spoil, message) in spoilers {
        let mut spoilt = bytes.clone();
        spoil(&mut spoilt);
        let refused = read_value(client.input(), &spoilt).unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
    // Every single byte of structure changed: refused or the same shape, never a panic.
    for position in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut spoilt = bytes.clone();
            spoilt[position] ^= flip;
            if let Ok(value) = read_value(client.input(), &spoilt) {
                assert_eq!(value.len(), client.input().len());
            }
        }
    }
}

#[test]
fn values_of_another_gate_are_refused_by_field() {
    let cases = golden();
    let bytes = cases[0].read("golden/input.bin");
    let refused = |change: fn(&mut cipherscore_engine::parameters::Gate)| {
        let mut gate = cases[0].client().input().clone();
        change(&mut gate);
        match read_value(&gate, &bytes).unwrap_err() {
            WireError::Mismatch { field, .. } => field,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(|gate| gate.shape = vec![1, 7]), "abstract shape");
    assert_eq!(refused(|gate| gate.key = 1), "key id");
    assert_eq!(refused(|gate| gate.lwe_dimension = 1000), "LWE dimension");
    assert_eq!(refused(|gate| gate.variance *= 1.0 + 1e-15), "variance");
    assert_eq!(refused(|gate| gate.encoding.width += 1), "width in bits");
    assert_eq!(refused(|gate| gate.encoding.signed ^= true), "signedness");
    let client = cases[0].client();
    assert!(read_value(client.output(), &bytes).is_err(), "an input is not an output");
}

/// Evaluation keys of a small keyset, and client keys: every byte of structure changed in turn.
#[test]
fn hostile_keys_are_refused_or_read_as_what_they_are() {
    use cipherscore_engine::parameters::{
        BootstrapKeyParameters, KeysetParameters, KeyswitchKeyParameters, SecretKeyParameters,
    };
    let parameters = KeysetParameters {
        secret_keys: [64, 8].map(|lwe_dimension| SecretKeyParameters { lwe_dimension }).to_vec(),
        bootstrap_keys: vec![BootstrapKeyParameters {
            input_key: 1,
            output_key: 0,
            level_count: 1,
            base_log: 8,
            glwe_dimension: 2,
            polynomial_size: 32,
            variance: 1e-20,
        }],
        keyswitch_keys: vec![KeyswitchKeyParameters {
            input_key: 0,
            output_key: 1,
            level_count: 2,
            base_log: 4,
            variance: 1e-20,
        }],
    };
    let client_keys = ClientKeys::generate(&parameters);
    let evaluation_keys = client_keys.evaluation_keys(&parameters, &|| {}).unwrap();
    let evaluation = keys::write_evaluation_keys(&evaluation_keys, &parameters);
    let client = keys::write_client_keys(&client_keys);
    assert_eq!(keys::read_evaluation_keys(&evaluation, &parameters).unwrap(), evaluation_keys);

    let mut refused = 0;
    for position in 0..evaluation.len().max(client.len()) {
        for flip in [0x01, 0x40, 0xff] {
            let spoil = |bytes: &[u8]| {
                let mut spoilt = bytes.to_vec();
                if let Some(byte) = spoilt.get_mut(position) {
                    *byte ^= flip;
                }
                spoilt
            };
            refused += match keys::read_evaluation_keys(&spoil(&evaluation), &parameters) {
                Ok(keys) => {
                    assert_eq!(keys.bootstrap_keys.len(), 1);
                    0
                }
                Err(_) => 1,
            };
            if let Ok(keys) = keys::read_client_keys(&spoil(&client), &parameters) {
                assert!(keys.words().flatten().all(|&word| word <= 1));
            }
        }
    }
    assert!(refused > 100, "{refused}");
    for len in 0..evaluation.len() {
        assert!(keys::read_evaluation_keys(&evaluation[..len], &parameters).is_err(), "{len}");
    }
}
