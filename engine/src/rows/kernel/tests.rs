//! Every kernel against sums of plain products.

use super::*;
use crate::rlwe::montgomery::tests::{product, random};

const POINTS: usize = 2048;

fn all(count: usize, prime: u64, first: u8) -> Vec<Vec<u64>> {
    (first..).take(count).map(|seed| random(POINTS, prime, seed)).collect()
}

fn slices(words: &[Vec<u64>]) -> Vec<&[u64]> {
    words.iter().map(Vec::as_slice).collect()
}

fn fields() -> impl Iterator<Item = (Kernel, Montgomery)> {
    let kernels = Kernel::available().into_iter();
    kernels.flat_map(|kernel| PRIMES.map(|prime| (kernel, Montgomery::new(prime))))
}

#[test]
fn sums_of_products_are_those_of_plain_numbers() {
    for (kernel, field) in fields() {
        let p = field.modulus();
        for count in [1, 3, 4, 32] {
            let (left, first) = (all(count, p, 1), all(count, p, 50));
            let (second, sums) = (all(count, p, 100), all(2, p, 150));
            let body = random(POINTS, p, 200);
            for addend in [Addend::Sums, Addend::Body(&body)] {
                let mut found = sums.clone();
                let [found_body, found_mask] = found.get_disjoint_mut([0, 1]).unwrap();
                let right = [slices(&first), slices(&second)];
                let terms = Terms { left: &slices(&left), right: [&right[0], &right[1]], addend };
                kernel.multiply(&field, terms, [found_body, found_mask]);
                for at in (0..POINTS).filter(|at| at % 17 == 0 || *at < 32) {
                    let before = match addend {
                        Addend::Sums => [sums[0][at], sums[1][at]],
                        Addend::Body(body) => [body[at], 0],
                    };
                    for (component, right) in [&first, &second].into_iter().enumerate() {
                        let terms = left.iter().zip(right);
                        let products = terms
                            .map(|(left, right)| product(field.plain_form(left[at]), right[at], p));
                        let sum = products.fold(before[component], |sum, term| (sum + term) % p);
                        assert_eq!(found[component][at], sum, "{kernel:?} {p} {count}");
                    }
                }
            }
        }
    }
}

/// As many of the largest products as may be summed.
#[test]
fn the_longest_sum_fits() {
    for (kernel, field) in fields() {
        let largest = vec![field.modulus() - 1; 16];
        let factors = vec![largest.as_slice(); MAX_TERMS];
        let terms =
            Terms { left: &factors, right: [&factors, &factors], addend: Addend::Body(&largest) };
        let mut sums = [vec![0; 16], vec![0; 16]];
        let [body, mask] = &mut sums;
        kernel.multiply(&field, terms, [body, mask]);
        // (-1)^2 R^-1, 4095 times.
        let sum = field.multiply(field.plain_form(1), MAX_TERMS as u64);
        assert_eq!(sums[1], [sum; 16]);
        assert_eq!(sums[0], [field.subtract(sum, 1); 16]);
    }
}

#[test]
fn digits_are_centred_and_make_up_the_residue() {
    for (kernel, from) in fields() {
        let words = random(POINTS, from.modulus(), 7);
        let to = Montgomery::new(PRIMES[5]);
        let centre = |word: u64, field: &Montgomery| {
            let word = word.cast_signed();
            let modulus = field.modulus().cast_signed();
            if word > modulus / 2 { word - modulus } else { word }
        };
        for count in 1..=4 {
            let bits = 51u32.div_ceil(count);
            let mut sums = vec![0; POINTS];
            for index in 0..count {
                let mut digits = vec![0; POINTS];
                let cut = DigitCut { bits, index, is_last: index + 1 == count };
                kernel.digit([&from, &to], cut, &words, &mut digits);
                for (sum, digit) in sums.iter_mut().zip(digits) {
                    assert!(count == 1 || centre(digit, &to).abs() <= 1 << (bits - 1), "{digit}");
                    *sum = to.add(*sum, to.multiply(digit, 1 << (bits * index)));
                }
            }
            let centred = words.iter().map(|&word| to.residue(centre(word, &from)));
            assert!(sums.into_iter().eq(centred), "{kernel:?} {count}");
        }
    }
}

/// Children of rounds, and what is scaled, as their formulas say.
#[test]
fn rounds_are_as_their_formulas_say() {
    for (kernel, field) in fields() {
        let words = all(9, field.modulus(), 11);
        let permutations = [5, 2 * POINTS - 1, 129].map(|g| PointPermutation::new(POINTS, g));
        let mut scaled = words[0].clone();
        kernel.scale(&field, words[1][9], &mut scaled);
        let round = OneRound {
            component: &words[0],
            switched: &words[1],
            permutation: &permutations[0],
            monomial: &words[2],
        };
        let mut two = [vec![0; POINTS], vec![0; POINTS]];
        kernel.one_round(&field, &round, two.each_mut().map(|words| Some(words.as_mut_slice())));
        for at in 0..POINTS {
            let (word, switched) = (words[0][at], words[1][permutations[0].source(at)]);
            assert_eq!(scaled[at], field.product(words[1][9], word));
            assert_eq!(two[0][at], field.add(word, switched));
            let odd = field.product(field.subtract(word, switched), words[2][at]);
            assert_eq!(two[1][at], odd, "{kernel:?}");
        }
        for monomials in [None, Some([&words[6][..], &words[7], &words[8]])] {
            let rounds = TwoRounds {
                component: &words[0],
                switched: [&words[1], &words[2], &words[3]],
                permutations: permutations.each_ref(),
                half: [words[4][0], words[4][1]],
                monomials,
            };
            let mut four = [0; 4].map(|_| vec![0; POINTS]);
            let children = four.each_mut().map(|words| Some(words.as_mut_slice()));
            kernel.two_rounds(&field, &rounds, children);
            for at in 0..POINTS {
                let [a, b, ab] = [0, 1, 2].map(|key| words[key + 1][permutations[key].source(at)]);
                let minus = |x| field.negate(x);
                let half = |x| field.product(x, words[4][2 * at / POINTS]);
                let sums = [
                    [words[0][at], a, b, ab],
                    [words[0][at], a, minus(b), minus(ab)],
                    [words[0][at], minus(a), half(b), minus(half(ab))],
                    [words[0][at], minus(a), minus(half(b)), half(ab)],
                ];
                for (index, terms) in sums.into_iter().enumerate() {
                    let sum = terms.into_iter().fold(0, |sum, term| field.add(sum, term));
                    let expected = match monomials {
                        Some(monomials) if index > 0 => {
                            field.product(sum, monomials[index - 1][at])
                        }
                        _ => sum,
                    };
                    assert_eq!(four[index][at], expected, "{kernel:?} {index}");
                }
            }
        }
    }
}

/// A child that is not wanted changes nothing in the others.
#[test]
fn children_that_are_not_wanted_are_left_out() {
    for (kernel, field) in fields() {
        let words = all(6, field.modulus(), 31);
        let permutation = PointPermutation::new(POINTS, 3);
        let rounds = TwoRounds {
            component: &words[0],
            switched: [&words[1], &words[2], &words[3]],
            permutations: [&permutation; 3],
            half: [words[4][0], words[4][1]],
            monomials: None,
        };
        let mut all = [0; 4].map(|_| vec![0; POINTS]);
        kernel.two_rounds(&field, &rounds, all.each_mut().map(|words| Some(words.as_mut_slice())));
        let [mut first, mut third] = [vec![0; POINTS], vec![0; POINTS]];
        let children = [Some(&mut first[..]), None, Some(&mut third[..]), None];
        kernel.two_rounds(&field, &rounds, children);
        assert_eq!([first, third], [all[0].clone(), all[2].clone()]);
    }
}

/// Words of a few kinds, so that those of a few vectors meet in all ways.
fn edges(prime: u64, vector: u32) -> Vec<u64> {
    let kinds = [0, 1, 2, prime / 2, prime / 2 + 1, (1 << 50) + 1, prime - 2, prime - 1];
    let digit = |at: usize| at / kinds.len().pow(vector % 3) % kinds.len();
    (0..POINTS).map(|at| kinds[digit(at)]).collect()
}

/// What a kernel makes of such words.
fn of_edges(kernel: Kernel, field: &Montgomery) -> Vec<Vec<u64>> {
    let words: Vec<_> = (0..20).map(|vector| edges(field.modulus(), vector)).collect();
    let slices = slices(&words);
    let mut outputs = Vec::new();
    for count in [1, 2, 3, 4, 5, 6, 7, 8, 13] {
        let right = [&slices[1..][..count], &slices[2..][..count]];
        let addend = Addend::Body(slices[4]);
        let mut sums = [vec![0; POINTS], vec![0; POINTS]];
        let [body, mask] = &mut sums;
        let terms = Terms { left: &slices[..count], right, addend };
        kernel.multiply(field, terms, [body, mask]);
        outputs.extend(sums);
    }
    for (bits, count) in [(51, 1), (26, 2), (13, 4)] {
        for index in 0..count {
            let cut = DigitCut { bits, index, is_last: index + 1 == count };
            let mut digits = vec![0; POINTS];
            let to = Montgomery::new(PRIMES[3]);
            kernel.digit([field, &to], cut, slices[0], &mut digits);
            outputs.push(digits);
        }
    }
    let mut scaled = words[0].clone();
    kernel.scale(field, field.modulus() - 1, &mut scaled);
    outputs.push(scaled);
    let permutation = PointPermutation::new(POINTS, 1);
    let rounds = TwoRounds {
        component: slices[0],
        switched: [slices[1], slices[2], slices[3]],
        permutations: [&permutation; 3],
        half: [1, field.modulus() - 1],
        monomials: Some([slices[5], slices[6], slices[7]]),
    };
    let mut four = [0; 4].map(|_| vec![0; POINTS]);
    let children = four.each_mut().map(|words| Some(words.as_mut_slice()));
    kernel.two_rounds(field, &rounds, children);
    outputs.extend(four);
    let round = OneRound {
        component: slices[0],
        switched: slices[1],
        permutation: &permutation,
        monomial: slices[2],
    };
    let mut two = [vec![0; POINTS], vec![0; POINTS]];
    let children = two.each_mut().map(|words| Some(words.as_mut_slice()));
    kernel.one_round(field, &round, children);
    outputs.extend(two);
    outputs
}

#[test]
fn extreme_words_are_treated_alike() {
    for (kernel, field) in fields() {
        let expected = of_edges(Kernel::portable(), &field);
        assert!(of_edges(kernel, &field) == expected, "{kernel:?} {}", field.modulus());
    }
}
