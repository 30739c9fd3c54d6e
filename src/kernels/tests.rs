use super::*;
use crate::index::testing::Random;

/// The product as its definition has it. Missing components are 0.
fn product(values: &[i8], code: &[u8]) -> i64 {
    let code = code.as_chunks::<BLOCK_BYTES>().0.as_flattened();
    values.iter().zip(code).map(|(value, byte)| i64::from(*value) * (i64::from(*byte) - 128)).sum()
}

fn lengths() -> impl Iterator<Item = usize> {
    let last = if cfg!(miri) { 512 } else { 4_096 };
    (0..=last).step_by(BLOCK_BYTES).chain((!cfg!(miri)).then_some(65_536))
}

fn random_values(random: &mut Random, len: usize) -> Vec<i8> {
    (0..len).map(|_| random.next() as i8).collect()
}

fn random_code(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.next() as u8).collect()
}

/// Every path of this processor against the sum in i64; the codes are of one length.
fn check(values: &[i8], codes: [&[u8]; 4]) {
    let expected = codes.map(|code| i32::try_from(product(values, code)).unwrap());
    for path in Path::available() {
        let mut probe = Probe::with_path(path);
        probe.set_signed(values);
        assert_eq!(codes.map(|code| dot(&probe, code)), expected, "{path:?}");
        assert_eq!(dots4(&probe, codes), expected, "{path:?}");
    }
}

#[test]
fn every_path_is_exact_for_random_components() {
    let mut random = Random::new(21);
    for len in lengths() {
        let values = random_values(&mut random, len);
        let codes = [(); 4].map(|()| random_code(&mut random, len));
        check(&values, codes.each_ref().map(Vec::as_slice));
    }
}

#[test]
fn every_path_is_exact_at_the_extremes() {
    for len in lengths() {
        for value in [-128, -127, -1, 0, 1, 127] {
            let values = vec![value; len];
            let codes = [0, 1, 128, 255].map(|byte| vec![byte; len]);
            check(&values, codes.each_ref().map(Vec::as_slice));
            // Signs that change with each byte, pair or four: nothing may saturate in between.
            let codes = [1, 2, 4, 8].map(|period: usize| {
                (0..len)
                    .map(|i| if (i / period).is_multiple_of(2) { 255 } else { 0 })
                    .collect::<Vec<u8>>()
            });
            check(&values, codes.each_ref().map(Vec::as_slice));
        }
    }
}

#[test]
fn every_byte_is_read_once() {
    let len = 3 * BLOCK_BYTES;
    for index in 0..len {
        let mut values = vec![0; len];
        values[index] = 100;
        let codes = [0, 1, 2, 3].map(|row| {
            let mut code = vec![128; len];
            code[index] = 129 + row;
            code[(index + 1) % len] = 7;
            code
        });
        check(&values, codes.each_ref().map(Vec::as_slice));
    }
}

#[test]
fn what_one_side_lacks_does_not_count() {
    let mut random = Random::new(22);
    let code = random_code(&mut random, 400);
    for len in [0, 1, 63, 64, 65, 128, 200, 256, 300, 384, 400, 500] {
        let values = random_values(&mut random, len);
        for code_len in [0, 1, 63, 64, 100, 128, 192, 384, 400] {
            // A slice that starts in the middle of a line is as good as another.
            check(&values, [&code[..code_len]; 4]);
            check(&values, [&code[code.len() - code_len..]; 4]);
        }
        for path in Path::available() {
            let mut probe = Probe::with_path(path);
            probe.set_signed(&values);
            assert_eq!(probe.len(), len.next_multiple_of(BLOCK_BYTES));
            // The shortest of the four says how far all of them count, whichever it is.
            for short in 0..4 {
                let mut codes = [&code[..], &code[64..], &code[3..], &code[1..]];
                codes[short] = &codes[short][..200];
                let expected = codes.map(|code| product(&values, &code[..192]) as i32);
                assert_eq!(dots4(&probe, codes), expected, "{path:?}");
            }
        }
    }
}

#[test]
fn a_probe_of_a_code_is_one_of_its_components() {
    let mut random = Random::new(23);
    let mut probe = Probe::new();
    let mut twin = Probe::new();
    for len in [384, 64, 0, 100, 1_000, 65_536] {
        let code = random_code(&mut random, len);
        let other = random_code(&mut random, len);
        let values: Vec<i8> = code.iter().map(|byte| (i32::from(*byte) - 128) as i8).collect();
        probe.set_code(&code);
        twin.set_signed(&values);
        assert_eq!(probe.len(), twin.len());
        assert_eq!(i64::from(dot(&probe, &other)), product(&values, &other));
        assert_eq!(dot(&twin, &other), dot(&probe, &other));
    }
}

#[test]
fn past_the_length_of_exact_sums_all_paths_wrap_alike() {
    let len = if cfg!(miri) { 0 } else { 200_000_usize.next_multiple_of(BLOCK_BYTES) };
    let code = vec![0; len];
    for path in Path::available() {
        let mut probe = Probe::with_path(path);
        probe.set_code(&code);
        let expected = (len as i64 * 128 * 128) as i32;
        assert_eq!(dot(&probe, &code), expected, "{path:?}");
        assert_eq!(dots4(&probe, [&code; 4]), [expected; 4], "{path:?}");
    }
}

#[test]
fn setting_a_probe_again_allocates_nothing() {
    let mut probe = Probe::new();
    probe.set_signed(&[1; 384]);
    let memory = probe.blocks.as_ptr();
    assert_eq!(memory.addr() % BLOCK_BYTES, 0);
    for len in [0, 1, 384] {
        probe.set_code(&vec![1; len]);
        probe.set_signed(&vec![1; len]);
        assert_eq!(probe.blocks.as_ptr(), memory);
    }
}

#[test]
fn the_portable_path_is_the_last_and_anything_may_be_prefetched() {
    assert_eq!(Path::available().last(), Some(Path(Instructions::Portable)));
    assert_eq!(Path::available().next(), Some(Path::best()));
    prefetch::<u8>(&[]);
    prefetch(&[1_u8; 5_000]);
    prefetch(&[std::sync::atomic::AtomicU32::new(1)]);
}

/// No processor is sure to have AVX-VNNI; see `x86::twin`.
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
#[test]
fn the_code_around_avx_vnni_is_exact() {
    if !Instructions::Avx512Vnni.are_supported() {
        return;
    }
    let mut random = Random::new(24);
    for len in lengths() {
        let mut probe = Probe::new();
        probe.set_signed(&random_values(&mut random, len));
        let codes = [(); 4].map(|()| random_code(&mut random, len));
        let [a, b, c, d] = codes.each_ref().map(|code| code.as_chunks().0);
        let expected = portable::dots4(&probe.blocks, a, b, c, d);
        // SAFETY: AVX-512 with VL and VNNI was detected just now, and implies AVX2.
        let (got, first) = unsafe {
            (
                x86::twin::dots4_vl(&probe.blocks, probe.correction, a, b, c, d),
                x86::twin::dot_vl(&probe.blocks, probe.correction, a),
            )
        };
        assert_eq!((got, first), (expected, expected[0]));
    }
}
