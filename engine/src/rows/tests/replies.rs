//! Replies that are not what they should be.

use super::models::{Shape, plain_sums};
use super::sides::{Sides, client};
use crate::rlwe::montgomery::tests::random;
use crate::rlwe::sampling::Noise;
use crate::rows::bits::{BitWriter, read_bits};
use crate::rows::client::{MAX_ANSWERED_ROWS, MAX_BAD_REPLIES, ReplyCounts, RowClientError};
use crate::rows::reply::{REPLY_HEADER_BYTES, seal};
use crate::rows::secret::RowSecretKey;

fn noise() -> Noise {
    Noise::from_key(&[8; 16])
}

/// What was not sent is of no consequence, whatever it is.
#[test]
fn unsent_coefficients_change_no_score() {
    let shape = Shape { trees: vec![6, 9], ..Shape::small() };
    let sides = Sides::new(shape.model(4));
    let row = shape.rows(1, 2).swap_remove(0);
    let upload = sides.encrypt(&row);
    let layout = sides.machine.layout;
    let columns: Vec<_> = (0..layout.columns()).map(|column| layout.coefficient(column)).collect();
    let words = sides.words(&upload, &noise(), |root| {
        for (index, prime) in sides.machine.ring.primes().iter().enumerate() {
            let body = root.ciphertext.body.of_mut(index);
            prime.inverse(body);
            let leftovers = random(body.len(), prime.modulus(), 77);
            for at in (0..body.len()).filter(|at| !columns.contains(at)) {
                body[at] = leftovers[at];
            }
            prime.forward(body);
        }
    });
    let untouched = sides.words(&upload, &noise(), |_| {});
    // The trace cancels it exactly, so that not even a word is another.
    assert_eq!(words, untouched);
    let reply = sides.reply(&upload, &words);
    let sums = sides.client.decrypt(upload.digest, 1, &reply, &mut ReplyCounts::default());
    assert_eq!(sums, Ok(vec![plain_sums(&sides.machine.program, &row)]));
}

/// A leaf too few or too many is no score.
#[test]
fn exactly_as_many_leaves_as_trees_are_reached() {
    let shape = Shape { trees: vec![5, 5], ..Shape::small() };
    let sides = Sides::new(shape.model(4));
    let upload = sides.encrypt(&shape.rows(1, 2)[0]);
    let reply = sides.reply(&upload, &sides.words(&upload, &noise(), |_| {}));
    for region in 0..2 {
        for (trees, is_good) in [(4, false), (5, true), (6, false)] {
            let mut parameters = sides.machine.parameters.clone();
            parameters.regions[region].trees = trees;
            let client = client(&parameters, &sides.secret);
            let mut counts = ReplyCounts::default();
            let sums = client.decrypt(upload.digest, 1, &reply, &mut counts);
            assert_eq!(sums.is_ok(), is_good, "{trees}");
            assert_eq!(counts.bad, u32::from(!is_good));
        }
    }
}

/// Whatever anybody on the way can do to a reply is seen, and burns no key.
#[test]
fn damaged_replies_do_not_count() {
    let shape = Shape::small();
    let sides = Sides::new(shape.model(4));
    let upload = sides.encrypt(&shape.rows(1, 2)[0]);
    let reply = sides.reply(&upload, &sides.words(&upload, &noise(), |_| {}));
    let mut counts = ReplyCounts::default();
    let mut refused = |rows, bytes: &[u8]| {
        sides.client.decrypt(upload.digest, rows, bytes, &mut counts).unwrap_err()
    };
    for at in 0..REPLY_HEADER_BYTES {
        let mut changed = reply.clone();
        changed[at] ^= 1;
        let expected = if at < 16 { RowClientError::Format } else { RowClientError::Damaged };
        assert_eq!(refused(1, &changed), expected, "{at}");
    }
    for at in [REPLY_HEADER_BYTES, reply.len() / 2, reply.len() - 1] {
        let mut changed = reply.clone();
        changed[at] ^= 16;
        assert_eq!(refused(1, &changed), RowClientError::Damaged, "{at}");
    }
    for bytes in [&[][..], &reply[..63], &reply[..reply.len() - 1], &[&reply[..], &[0]].concat()] {
        assert_eq!(refused(1, bytes), RowClientError::Format);
    }
    assert_eq!(refused(2, &reply), RowClientError::Format);
    assert_eq!(refused(0, &reply), RowClientError::Format);
    let other = sides.client.encrypt(&shape.rows(1, 2), &ReplyCounts::default()).unwrap();
    let answer = sides.client.decrypt(other.digest, 1, &reply, &mut counts);
    assert_eq!(answer, Err(RowClientError::OtherUpload));
    // Bits behind the last word.
    let mut filled = reply.clone();
    filled.truncate(reply.len() - 32);
    let words = sides.machine.layout.outputs() + 8192;
    let free = (words * sides.machine.parameters.word_bits as usize) % 8;
    if free > 0 {
        *filled.last_mut().unwrap() |= 0x80;
        seal(&mut filled);
        let answer = sides.client.decrypt(upload.digest, 1, &filled, &mut counts);
        assert_eq!(answer, Err(RowClientError::Format));
    }
    assert_eq!(counts, ReplyCounts::default());
    assert!(sides.client.decrypt(upload.digest, 1, &reply, &mut counts).is_ok());
}

/// Replies that a worker has made up count, each once, and eight of them are the end of a key.
#[test]
fn eight_bad_replies_burn_a_key() {
    let shape = Shape { trees: vec![2], ..Shape::small() };
    let sides = Sides::new(shape.model(4));
    let upload = sides.encrypt(&shape.rows(1, 2)[0]);
    let good = sides.words(&upload, &noise(), |_| {});
    let (layout, bits) = (sides.machine.layout, sides.machine.parameters.word_bits);
    // A canary's word, moved by half of what all words are.
    let mut words = read_bits(&good, 8192 + layout.outputs(), bits).unwrap();
    let last = words.len() - 1;
    words[last] ^= 1 << (bits - 1);
    let mut crafted = Vec::new();
    let mut writer = BitWriter::new(&mut crafted);
    words.iter().for_each(|&word| writer.push(word, bits));
    writer.finish();
    let [good, crafted] = [good, crafted].map(|words| sides.reply(&upload, &words));
    let mut counts = ReplyCounts::default();
    for bad in 1..=MAX_BAD_REPLIES {
        let answer = sides.client.decrypt(upload.digest, 1, &crafted, &mut counts);
        assert_eq!(answer, Err(RowClientError::Bad { bad }));
        let answer = sides.client.decrypt(upload.digest, 1, &good, &mut counts);
        assert_eq!(answer.is_ok(), bad < MAX_BAD_REPLIES);
    }
    let answer = sides.client.decrypt(upload.digest, 1, &good, &mut counts);
    assert_eq!(answer, Err(RowClientError::Burned));
    assert_eq!(counts, ReplyCounts { answered_rows: 7, bad: 8 });
    let mut used_up = ReplyCounts { answered_rows: MAX_ANSWERED_ROWS, bad: 0 };
    let answer = sides.client.decrypt(upload.digest, 1, &good, &mut used_up);
    assert_eq!(answer, Err(RowClientError::UsedUp));
}

/// No reply, and no upload, takes a key beyond its rows.
#[test]
fn a_key_is_good_for_so_many_rows() {
    let shape = Shape { trees: vec![2], ..Shape::small() };
    let sides = Sides::new(shape.model(4));
    let rows = shape.rows(2, 2);
    let upload = sides.client.encrypt(&rows, &ReplyCounts::default()).unwrap();
    let mut one_left = ReplyCounts { answered_rows: MAX_ANSWERED_ROWS - 1, bad: 0 };
    assert_eq!(sides.client.encrypt(&rows, &one_left), Err(RowClientError::UsedUp));
    assert_eq!(one_left.require_usable(2), Err(RowClientError::UsedUp));
    // What is no reply is none under any key.
    let answer = sides.client.decrypt(upload.digest, 2, &[], &mut one_left);
    assert_eq!(answer, Err(RowClientError::Format));
    let last = sides.encrypt(&rows[0]);
    let reply = sides.reply(&last, &sides.words(&last, &noise(), |_| {}));
    assert!(sides.client.encrypt(&rows[..1], &one_left).is_ok());
    assert!(sides.client.decrypt(last.digest, 1, &reply, &mut one_left).is_ok());
    assert_eq!(one_left.answered_rows, MAX_ANSWERED_ROWS);
    assert_eq!(sides.client.encrypt(&rows[..1], &one_left), Err(RowClientError::UsedUp));
    let mut burned = ReplyCounts { answered_rows: 0, bad: MAX_BAD_REPLIES };
    let mut damaged = reply.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (reply, expected) in [(damaged, RowClientError::Damaged), (reply, RowClientError::Burned)] {
        let answer = sides.client.decrypt(last.digest, 1, &reply, &mut burned);
        assert_eq!(answer, Err(expected));
    }
    assert_eq!(sides.client.encrypt(&rows[..1], &burned), Err(RowClientError::Burned));
}

/// Another key, and another model of the same parameters, are found out by the canaries.
#[test]
fn another_key_is_found_out() {
    let shape = Shape::small();
    let sides = Sides::new(shape.model(4));
    let upload = sides.encrypt(&shape.rows(1, 2)[0]);
    let reply = sides.reply(&upload, &sides.words(&upload, &noise(), |_| {}));
    let other = RowSecretKey::generate(&shape.keys).unwrap();
    let client = client(&sides.machine.parameters, &other);
    let answer = client.decrypt(upload.digest, 1, &reply, &mut ReplyCounts::default());
    assert_eq!(answer, Err(RowClientError::Bad { bad: 1 }));
}

/// What is left in the memory of a worker would tell the leaves, with the reply.
#[test]
fn nothing_of_a_row_stays_in_its_workspace() {
    let shape = Shape { trees: vec![40, 3, 7], ..Shape::small() };
    let sides = Sides::new(shape.model(4));
    let upload = sides.encrypt(&shape.rows(1, 2)[0]);
    let noise = noise();
    let (mut workspace, mut words) = (sides.workspace(), Vec::new());
    let machine = &sides.machine;
    machine.evaluate(sides.job(&upload, &noise), &mut workspace, &mut |_| {}, &mut words).unwrap();
    let layout = machine.layout;
    assert!(layout.reply_ciphertexts() > 1 && layout.used_groups() > 1);
    let primes = 0..machine.ring.primes().len();
    for sum in &workspace.sums {
        let words = primes.clone().flat_map(|prime| [sum.body.of(prime), sum.mask.of(prime)]);
        assert!(words.flatten().all(|&word| word == 0));
    }
    let mut transforms = workspace.transforms.iter().take(layout.used_groups());
    assert!(transforms.all(|words| words.iter().all(|&word| word == 0)));
    assert!(workspace.weights.constants().is_empty());
    for reply in 0..layout.reply_ciphertexts() {
        let mut groups = 0..layout.groups();
        assert!(groups.all(|group| workspace.weights.polynomial(reply, group).is_empty()));
    }
}

/// Two evaluations of one upload have nothing in common.
#[test]
fn evaluations_are_fresh() {
    let shape = Shape::small();
    let sides = Sides::new(shape.model(4));
    let upload = sides.encrypt(&shape.rows(1, 2)[0]);
    let bits = sides.machine.parameters.word_bits;
    let count = 8192 + sides.machine.layout.outputs();
    let words = [8, 9].map(|key| {
        let words = sides.words(&upload, &Noise::from_key(&[key; 16]), |_| {});
        read_bits(&words, count, bits).unwrap()
    });
    let equal = words[0].iter().zip(&words[1]).filter(|(first, second)| first == second).count();
    assert!(equal < 4, "{equal} words of {count} are the same");
}
