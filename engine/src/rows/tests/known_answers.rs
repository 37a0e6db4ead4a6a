//! Bytes that must never change without a version: whoever reads an older key or upload reads these.

use cipherscore_ids::Digest;

use super::models::{Shape, fixed_secret, plain_sums, steps};
use super::sides::Sides;
use crate::rlwe::sampling::Noise;
use crate::rows::client::ReplyCounts;
use crate::rows::parameters::RowKeyParameters;
use crate::rows::ring::RowRing;

fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

#[test]
fn keys_are_those_of_known_answers() {
    let rings = [(4096, 2, 2), (8192, 3, 1), (8192, 4, 2), (16384, 4, 1)];
    let found = rings.map(|(ring_dimension, primes, digits)| {
        let keys = RowKeyParameters { ring_dimension, primes, steps: steps(3, digits) };
        let ring = RowRing::new(&keys).unwrap();
        sha256(&fixed_secret(&keys).evaluation_key(&ring).unwrap())
    });
    let expected = [
        "14a98ba1f5c7a5f39c7d49aaa672a348973f0d1743941cd308afa940dcfa5223",
        "2d2814088af1d43fc88c30b87d35a6f2f136e168b3290d44ad4eb101e8b5bb10",
        "08d078864b694a7d78daf26ec27d756e9909187f5627d8f909ff2ca17f5c7041",
        "9a2176d8456a0f43c09be32f7bb09f6021edcacac1e419f8d0f2191a09613337",
    ];
    assert_eq!(found, expected);
}

#[test]
fn uploads_and_replies_are_those_of_known_answers() {
    let rings = [(8192, 3, 9), (8192, 4, 9), (16384, 4, 10)];
    let found = rings.map(|(ring_dimension, primes, rounds)| {
        let keys = RowKeyParameters { ring_dimension, primes, steps: steps(rounds, 1) };
        let shape = Shape { keys, ..Shape::small() };
        let sides = Sides::new(shape.model(4));
        let row = shape.rows(1, 2).swap_remove(0);
        let sent = sides.encrypt(&row);
        let noise = Noise::from_key(&[8; 16]);
        let answer = sides.reply(&sent, &sides.words(&sent, &noise, |_| {}));
        let sums = sides.client.decrypt(sent.digest, 1, &answer, &mut ReplyCounts::default());
        assert_eq!(sums, Ok(vec![plain_sums(&sides.machine.program, &row)]));
        [sha256(&sent.bytes), sha256(&answer)]
    });
    let expected = [
        [
            "68d1e260bb18ba345683e45b2047041d03679d4737234099b5f5653069a5a7a0",
            "b26ee2bc22e9e59d1758dda756e4832537a5d6e4d2343e6ceb45d62e4018398a",
        ],
        [
            "e033afa454174e1ec7cebb499b6ab96ac27c0924612ff6d6cf13558c4e70040f",
            "ec24248bfa72bd52a76089e8be5f357d6664f1c4584783a20020a169f27071c0",
        ],
        [
            "eb695805757432499b536fe360f6f2ba6d9655986645a1a60574d8828a0c616a",
            "5cc4698bc4fd273abdb5a9ce6ca6aca6d8a99fbf7b66e86e824a010310b53c65",
        ],
    ];
    assert_eq!(found, expected);
}
