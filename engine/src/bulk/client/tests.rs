//! Uploads from rows to rows, with a naive worker between.

use std::collections::HashSet;
use std::sync::Arc;

use super::*;
use crate::bulk::flood::Flood;
use crate::bulk::layout::{reply_len, upload_len};
use crate::bulk::noise::{rounding_variance, sanitiser_variance};
use crate::bulk::parameters::Packing;
use crate::bulk::sanitise::Sanitiser;
use crate::bulk::secret::PublicKey;
use crate::bulk::switch::Switch;
use crate::bulk::tests::*;
use crate::rlwe::mask::SEED_BYTES;
use crate::rlwe::sampling::ERROR_VARIANCE;

fn fixed_client(ring: &Arc<Ring>) -> BulkClient {
    BulkClient::new(Arc::clone(ring), &fixed_secret(ring.parameters())).unwrap()
}

#[test]
fn polynomials_in_bits_come_back_exactly() {
    for (ring, degree) in slots() {
        let client = fixed_client(&ring);
        let rows = ring.dimension() + 5;
        let upload = client.encrypt(rows, degree + 1, fill_bits).unwrap();
        assert_eq!(Some(upload.len()), upload_len(ring.parameters(), rows, degree + 1));
        let columns = read_upload(&ring, &upload, rows, degree + 1);
        // 5 - 3 c_D + 4 c_0 c_1 .. c_(D-1), and c_0.
        let outputs = columns.iter().map(|columns| {
            let mut product = columns[0].clone();
            for column in &columns[1..degree as usize] {
                product = product.times(&ring, column);
            }
            let mut output = Ciphertext(vec![]);
            output.add_scaled(&ring, 4, &product);
            output.add_scaled(&ring, -3, &columns[degree as usize]);
            output.add_constant(&ring, 5);
            let mut other = output.clone();
            other.add_scaled(&ring, -1, &output);
            other.add_scaled(&ring, 1, &columns[0]);
            vec![output, other]
        });
        let reply = write_reply(&ring, rows, &outputs.collect::<Vec<_>>());
        let primes = ring.parameters().primes;
        assert_eq!(Some(reply.len()), reply_len(ring.parameters(), rows, 2, degree, primes));
        let shape = ReplyShape { rows, outputs: 2, degree, primes };
        let found = client.decrypt(&reply, shape).unwrap();
        let expected = |row| {
            let product: i64 = (0..degree).map(|column| bit(column, row)).product();
            5 - 3 * bit(degree, row) + 4 * product
        };
        assert_eq!(found[0], (0..rows).map(expected).collect::<Vec<_>>(), "{ring:?}");
        assert_eq!(found[1], (0..rows).map(|row| bit(0, row)).collect::<Vec<_>>(), "{ring:?}");
    }
}

/// `V_f = t^2 (10.5 + 1/12)` of a column, and `N V_f^2` of a product of two.
#[test]
fn noise_of_columns_and_products_is_as_predicted() {
    for (ring, _) in slots() {
        let secret = fixed_secret(ring.parameters());
        let rows = ring.dimension();
        let upload = encrypt_fixed(&fixed_client(&ring), rows, 2, fill_bits);
        let columns = read_upload(&ring, &upload, rows, 2).swap_remove(0);
        let t = ring.parameters().plaintext_modulus as f64;
        let fresh = (t * t * (ERROR_VARIANCE + 1.0 / 12.0)).log2() / 2.0;
        for column in &columns {
            let measured = column.log2_deviation(&ring, &secret);
            assert!((measured - fresh).abs() < 0.1, "{ring:?}: {measured} {fresh}");
        }
        let predicted = 2.0 * fresh + (rows as f64).log2() / 2.0;
        // Where a residue modulo one prime is the phase.
        if predicted < 46.0 {
            let measured = columns[0].times(&ring, &columns[1]).log2_deviation(&ring, &secret);
            assert!((measured - predicted).abs() < 0.1, "{ring:?}: {measured} {predicted}");
        }
    }
}

/// The whole way of a hidden model, to every number of primes whose noise fits.
#[test]
fn sanitised_and_switched_replies_come_back_exactly() {
    // One prime has no room for a flood, and some rings have room for less degree with one.
    let degrees = [2, 1, 2, 4, 5, 5, 8];
    for ((ring, _), degree) in slots().into_iter().skip(2).zip(degrees) {
        let parameters = ring.parameters();
        let secret = SecretKey::generate(parameters).unwrap();
        let client = BulkClient::new(Arc::clone(&ring), &secret).unwrap();
        let key = PublicKey::read(&secret.public_key(&ring).unwrap(), parameters).unwrap();
        let rows = ring.dimension();
        let columns = client.encrypt(rows, degree, fill_bits).unwrap();
        let columns = read_upload(&ring, &columns, rows, degree).swap_remove(0);
        let product = columns[1..].iter().fold(columns[0].clone(), |p, c| p.times(&ring, c));
        // One product of D phases whose coefficients have the variance of errors and plaintexts.
        let t = parameters.plaintext_modulus as f64;
        let fresh = t * t * (ERROR_VARIANCE + 1.0 / 12.0);
        let evaluated = fresh.powi(degree.cast_signed()) * (rows as f64).powi(degree as i32 - 1);
        let variance = evaluated + sanitiser_variance(parameters, degree);
        let flood = Flood::hiding(variance.log2() / 2.0, parameters.plaintext_modulus);
        let sanitiser = Sanitiser::new(Arc::clone(&ring), Arc::new(key), degree, flood);
        let mut words = product.to_words();
        sanitiser.prepare(1).unwrap().swap_remove(0).add(&ring, &mut words);
        let sanitised = Ciphertext::from_words(&ring, &words);
        let rounding = rounding_variance(parameters, degree).log2() / 2.0 + 4.0;
        let mut fitted = 0;
        for kept in 1..=parameters.primes {
            let kept_bits = 51.0 * f64::from(kept) - 1.1;
            let noise = flood.log2_bound(parameters.plaintext_modulus) + kept_bits
                - (parameters.log2_modulus() - 1.1);
            if noise > kept_bits || rounding > kept_bits {
                continue;
            }
            fitted += 1;
            let mut output = sanitised.clone();
            let switch = Switch::new(Arc::clone(&ring), kept);
            output.switch(&ring, &switch);
            let reply = write_reply(&ring, rows, &[vec![output]]);
            let shape = ReplyShape { rows, outputs: 1, degree, primes: kept };
            let expected = |row| (0..degree).map(|column| bit(column, row)).product::<i64>();
            assert_eq!(
                client.decrypt(&reply, shape).unwrap(),
                [(0..rows).map(expected).collect::<Vec<_>>()],
                "{ring:?} to {kept} primes"
            );
        }
        assert!(fitted > 1, "{ring:?}: {flood:?} fits {fitted} numbers of primes");
    }
}

#[test]
fn linear_combinations_of_coefficients_come_back_exactly() {
    for (dimension, primes, t) in
        [(2048, 1, 1 << 30), (4096, 1, 1 << 24), (4096, 2, 1 << 40), (8192, 3, 1 << 20)]
    {
        let ring = ring(Packing::Coefficients, dimension, primes, t);
        let client = fixed_client(&ring);
        let value =
            |column: u32, row: usize| ((row * 37 + 11 * column as usize) % 301) as i64 - 150;
        let fill = |column, first, values: &mut [i64]| {
            values.iter_mut().enumerate().for_each(|(at, v)| *v = value(column, first + at));
        };
        for rows in [1, 255, 256, 300, ring.dimension(), ring.dimension() + 257] {
            let upload = client.encrypt(rows, 3, fill).unwrap();
            assert_eq!(Some(upload.len()), upload_len(ring.parameters(), rows, 3));
            let columns = read_upload(&ring, &upload, rows, 3);
            let outputs = columns.iter().map(|columns| {
                let mut output = Ciphertext(vec![]);
                for (weight, column) in [7, -99, 1000].into_iter().zip(columns) {
                    output.add_scaled(&ring, weight, column);
                }
                vec![output]
            });
            let reply = write_reply(&ring, rows, &outputs.collect::<Vec<_>>());
            let shape = ReplyShape { rows, outputs: 1, degree: 1, primes };
            assert_eq!(Some(reply.len()), reply_len(ring.parameters(), rows, 1, 1, primes));
            let found = client.decrypt(&reply, shape).unwrap();
            let expected = |row| 7 * value(0, row) - 99 * value(1, row) + 1000 * value(2, row);
            assert_eq!(found, [(0..rows).map(expected).collect::<Vec<_>>()], "{rows} {ring:?}");
        }
    }
}

#[test]
fn extreme_integers_fit_and_larger_ones_are_refused() {
    for ring in [
        ring(Packing::Slots, 2048, 1, 12289),
        ring(Packing::Coefficients, 2048, 1, 1 << 20),
        ring(Packing::Coefficients, 4096, 2, 2),
    ] {
        let client = fixed_client(&ring);
        let t = ring.parameters().plaintext_modulus.cast_signed();
        let rows = [-(t / 2), (t - 1) / 2];
        let fill = |_, _, values: &mut [i64]| values.copy_from_slice(&rows);
        let upload = client.encrypt(2, 1, fill).unwrap();
        let columns = read_upload(&ring, &upload, 2, 1);
        let reply = write_reply(&ring, 2, &columns);
        let primes = ring.parameters().primes;
        let shape = ReplyShape { rows: 2, outputs: 1, degree: 1, primes };
        assert_eq!(client.decrypt(&reply, shape), Ok(vec![rows.to_vec()]));
        for wrong in [-(t / 2) - 1, (t - 1) / 2 + 1, i64::MIN, i64::MAX] {
            let fill = |column, first, values: &mut [i64]| {
                values.fill(0);
                if column == 2 && first > 0 {
                    values[1] = wrong;
                }
            };
            let row = ring.dimension() + 1;
            assert_eq!(
                client.encrypt(ring.dimension() + 5, 3, fill),
                Err(BulkClientError::Range { row, column: 2 })
            );
        }
    }
}

/// Mask seeds of the ring batches of an upload.
fn mask_seeds(ring: &Ring, upload: &[u8], rows: usize, columns: u32) -> Vec<Vec<u8>> {
    let len = upload_len(ring.parameters(), ring.dimension(), columns).unwrap();
    let seeds =
        upload.chunks(len).map(|ring_batch| ring_batch[..SEED_BYTES].to_vec()).collect::<Vec<_>>();
    assert_eq!(seeds.len(), ring.parameters().ring_batches(rows));
    seeds
}

#[test]
fn no_mask_is_used_twice() {
    let ring = ring(Packing::Slots, 2048, 1, 12289);
    let client = fixed_client(&ring);
    let rows = 3 * ring.dimension();
    let mut seeds = HashSet::new();
    let mut masks = HashSet::new();
    let mut bodies = HashSet::new();
    for _ in 0..3 {
        let upload = client.encrypt(rows, 2, |_, _, values| values.fill(0)).unwrap();
        for seed in mask_seeds(&ring, &upload, rows, 2) {
            assert!(seeds.insert(seed));
        }
        for column in read_upload(&ring, &upload, rows, 2).into_iter().flatten() {
            column.0[0][0].iter().for_each(|word| assert!(bodies.insert(*word)));
            column.0[1][0].iter().for_each(|word| assert!(masks.insert(*word)));
        }
    }
    assert_eq!(masks.len(), 3 * 3 * 2 * 2048);
}

#[test]
fn hostile_replies_are_refused() {
    let ring = ring(Packing::Slots, 4096, 2, 40961);
    let client = fixed_client(&ring);
    let shape = ReplyShape { rows: 4097, outputs: 2, degree: 3, primes: 2 };
    let expected = reply_len(ring.parameters(), 4097, 2, 3, 2).unwrap();
    let reply = vec![0; expected];
    assert_eq!(client.decrypt(&reply, shape), Ok(vec![vec![0; 4097]; 2]));
    for found in [0, 1, expected - 1, expected + 1, 2 * expected] {
        assert_eq!(
            client.decrypt(&vec![0; found], shape),
            Err(BulkClientError::Length { found, expected })
        );
    }
    for at in [0, expected / 2, expected - 1632] {
        let mut reply = reply.clone();
        reply[at / 1632 * 1632..][..1632].fill(0xff);
        assert_eq!(client.decrypt(&reply, shape), Err(BulkClientError::Words(WordsError::Range)));
    }
    for (primes, degree) in [(0, 3), (3, 3)] {
        let shape = ReplyShape { primes, degree, ..shape };
        assert_eq!(client.decrypt(&reply, shape), Err(BulkClientError::Shape { primes, degree }));
    }
    let huge = ReplyShape { rows: usize::MAX, outputs: usize::MAX, degree: u32::MAX, primes: 2 };
    assert!(matches!(client.decrypt(&reply, huge), Err(BulkClientError::TooLarge { .. })));
    assert!(matches!(
        client.encrypt(usize::MAX, u32::MAX, fill_bits),
        Err(BulkClientError::TooLarge { .. })
    ));
    assert_eq!(client.decrypt(&[], ReplyShape { rows: 0, ..shape }), Ok(vec![vec![]; 2]));
    assert_eq!(client.decrypt(&[], ReplyShape { outputs: 0, ..shape }), Ok(vec![]));
}

#[test]
fn secrets_of_other_rings_are_refused() {
    let ring = ring(Packing::Slots, 4096, 2, 40961);
    let parameters = Parameters { ring_dimension: 2048, ..*ring.parameters() };
    assert_eq!(
        BulkClient::new(Arc::clone(&ring), &fixed_secret(&parameters)).err(),
        Some(BulkClientError::Secret { found: 2048, expected: 4096 })
    );
    assert!(!format!("{:?}", fixed_client(&ring)).contains("secret"));
}

/// What is encrypted under fixed seeds is part of the format: masks, order of points, packing.
#[test]
fn uploads_are_those_of_known_answers() {
    let mut found: Vec<_> = slots()
        .into_iter()
        .map(|(ring, _)| {
            let rows = ring.dimension() + 5;
            sha256(&encrypt_fixed(&fixed_client(&ring), rows, 3, fill_bits))
        })
        .collect();
    for (dimension, primes, t) in [(2048, 1, 1 << 30), (4096, 2, 1 << 40)] {
        let ring = ring(Packing::Coefficients, dimension, primes, t);
        let rows = ring.dimension() + 5;
        found.push(sha256(&encrypt_fixed(&fixed_client(&ring), rows, 3, fill_bits)));
    }
    assert_eq!(found, KNOWN_ANSWERS);
}

/// SHA-256 of uploads: of [`slots`] in their order, then of two rings with coefficients.
const KNOWN_ANSWERS: [&str; 11] = [
    "f57f492a504303ae30cb94373a7ca1cf3330fc8556a44c2cc0ba028e1c220950",
    "0109af521c98d802d70e228f94ac753c65866c33bc287bdb4704f80bac63a19a",
    "5b4f2cbe7e96dca65d4a977fc837c0676ef059056aed57c840f3670b8bcddf76",
    "5ae6f82b30c89867de4c6907fd62d1b5e7bd75e64c15af1dc207e7571587a08a",
    "b9df18f7033a64afda85f62b9b689ed9d697b40f9c34cbb4602d8f621b61d30d",
    "bc8b72023f4d7e73d2c3f20afa7754c41d540741b1f686196885a728ce703339",
    "bbc726b04db8cf970296a074dd33d7ec1f7f4d05dcd0fc28319b495b8ed29ed7",
    "cbb69a3cbf4d858b06354bd97e340b99e51596bdb325b72ee8439e61fe6126e7",
    "c286181412e44d1432a0d05cd2f58fbdf3a786b750f9acc43b0b1b5425ebcf1f",
    "72337faefb8326bd0fe9dfd8969bb199bc7ffc397482041dcc33981d3d629795",
    "2b93e9c4b88e3d26c018cc38ad1954a19ab3734b9eadaff86995d45263d3628b",
];
