use super::*;
use crate::index::testing::Random;

/// What the bytes of a code say by the definition of the format.
fn nibbles(code: &[u8], index: usize) -> (i64, i64) {
    let (high, low) = code.split_at(code.len() / 2);
    let byte = index / 128 * 64 + index % 64;
    let shift = if index % 128 < 64 { 0 } else { 4 };
    (i64::from(high[byte] >> shift & 15), i64::from(low[byte] >> shift & 15))
}

/// The product over the first components of a code of whole groups. Missing components are 0.
fn product(values: &[i8], code: &[u8]) -> i64 {
    let component = |i| {
        let (high, low) = nibbles(code, i);
        16 * high + low - 128
    };
    (0..values.len().min(code.len())).map(|i| i64::from(values[i]) * component(i)).sum()
}

/// Twice the coarse product, an integer.
fn coarse_twice(values: &[i8], code: &[u8]) -> i64 {
    let component_twice = |i| 32 * nibbles(code, i).0 + 15 - 256;
    (0..values.len().min(code.len())).map(|i| i64::from(values[i]) * component_twice(i)).sum()
}

fn coarse_product(values: &[i8], code: &[u8]) -> f32 {
    (coarse_twice(values, code) as f64 / 2.0) as f32
}

fn high_plane(code: &[u8]) -> &[u8] {
    &code[..code.len() / 2]
}

fn lengths() -> impl Iterator<Item = usize> {
    let last = if cfg!(miri) { 512 } else { 4_096 };
    (0..=last).step_by(GROUP).chain((!cfg!(miri)).then_some(65_536))
}

fn random_values(random: &mut Random, len: usize) -> Vec<i8> {
    (0..len).map(|_| random.next() as i8).collect()
}

fn random_code(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.next() as u8).collect()
}

/// The code of these stored bytes.
fn code_of(stored: &[u8]) -> Vec<u8> {
    let signed: Vec<i8> = stored.iter().map(|byte| (i32::from(*byte) - 128) as i8).collect();
    let mut code = vec![0; code_bytes(stored.len())];
    pack(&signed, &mut code);
    code
}

/// Every path of this processor against the sums in i64; the codes are of one length.
fn check(values: &[i8], codes: [&[u8]; 4]) {
    let expected = codes.map(|code| i32::try_from(product(values, code)).unwrap());
    let expected_coarse = codes.map(|code| coarse_product(values, code));
    let planes = codes.map(high_plane);
    for path in Path::available() {
        let mut probe = Probe::with_path(path);
        probe.set_signed(values);
        assert_eq!(codes.map(|code| dot(&probe, code)), expected, "{path:?}");
        assert_eq!(dots4(&probe, codes), expected, "{path:?}");
        assert_eq!(planes.map(|plane| coarse(&probe, plane)), expected_coarse, "{path:?}");
        assert_eq!(coarse4(&probe, planes), expected_coarse, "{path:?}");
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
            let codes = [0, 1, 128, 255].map(|stored| code_of(&vec![stored; len]));
            check(&values, codes.each_ref().map(Vec::as_slice));
            // Signs that change with each byte, pair or four: nothing may saturate in between.
            let codes = [1, 2, 4, 8].map(|period: usize| {
                let is_even = |i: usize| (i / period).is_multiple_of(2);
                let stored = (0..len).map(|i| if is_even(i) { 255 } else { 0 });
                code_of(&stored.collect::<Vec<u8>>())
            });
            check(&values, codes.each_ref().map(Vec::as_slice));
        }
    }
}

#[test]
fn every_component_is_read_once() {
    let len = 3 * GROUP;
    for index in (0..len).step_by(if cfg!(miri) { 37 } else { 1 }) {
        let mut values = vec![0; len];
        values[index] = 100;
        let codes = [0, 1, 2, 3].map(|row| {
            let mut stored = vec![128; len];
            stored[index] = 129 + 18 * row;
            stored[(index + 1) % len] = 7;
            stored[(index + 64) % len] = 250;
            code_of(&stored)
        });
        check(&values, codes.each_ref().map(Vec::as_slice));
    }
}

#[test]
fn a_code_has_its_components_where_the_format_says() {
    assert_eq!([0, 1, 128, 129, 384].map(code_bytes), [0, 128, 128, 256, 384]);
    let mut random = Random::new(25);
    for len in [0, 1, 63, 64, 65, 127, 128, 129, 256, 384, 400] {
        let values = random_values(&mut random, len);
        let mut code = random_code(&mut random, code_bytes(len) + 128);
        pack(&values, &mut code);
        for i in 0..code.len() {
            let (high, low) = nibbles(&code, i);
            let value = values.get(i).copied().unwrap_or_default();
            assert_eq!(16 * high + low - 128, i64::from(value), "component {i} of {len}");
        }
        // Every path takes out what was put in, and sums it up.
        for path in Path::available() {
            let mut probe = Probe::with_path(path);
            probe.set_code(&code);
            assert_eq!(probe.len(), code.len());
            let components: Vec<i8> =
                probe.groups.iter().flat_map(|group| group.0.as_flattened()).copied().collect();
            let (components, padding) = components.split_at(len);
            assert_eq!(components, values, "{path:?}");
            assert!(padding.iter().all(|component| *component == 0));
            assert_eq!(probe.sum, values.iter().map(|value| i32::from(*value)).sum::<i32>());
        }
    }
}

#[test]
fn components_beyond_a_code_and_bytes_beyond_its_groups_are_left_out() {
    let values: Vec<i8> = (-100..100).collect();
    let mut code = vec![9; GROUP + 100];
    pack(&values, &mut code);
    let mut fitting = vec![0; GROUP];
    pack(&values[..GROUP], &mut fitting);
    assert_eq!(code, [fitting.as_slice(), &[9; 100]].concat());
    pack(&values, &mut []);
}

#[test]
fn what_one_side_lacks_does_not_count() {
    let mut random = Random::new(22);
    let code = random_code(&mut random, 515);
    for len in [0, 1, 64, 127, 128, 129, 200, 256, 300, 384, 400, 500] {
        let values = random_values(&mut random, len);
        for code_len in [0, 128, 256, 384, 512] {
            check(&values, [&code[..code_len]; 4]);
            // A slice that starts in the middle of a line is as good as another.
            check(&values, [&code[3..][..code_len]; 4]);
        }
        for path in Path::available() {
            let mut probe = Probe::with_path(path);
            probe.set_signed(&values);
            assert_eq!(probe.len(), len.next_multiple_of(GROUP));
            // Bytes past the last whole group are as good as none.
            for code_len in [0, 1, 63, 64, 127, 128, 130, 200, 300, 391] {
                let whole = &code[..code_len / GROUP * GROUP];
                assert_eq!(i64::from(dot(&probe, &code[..code_len])), product(&values, whole));
                let plane = &code[..code_len / 64 * 64];
                let expected = coarse_product(&values, &plane.repeat(2));
                assert_eq!(coarse(&probe, &code[..code_len]), expected, "{path:?}");
                let mut probe_of_code = Probe::with_path(path);
                probe_of_code.set_code(&code[..code_len]);
                assert_eq!(probe_of_code.len(), whole.len());
            }
            // The shortest of the four says how far all of them count, whichever it is.
            for short in 0..4 {
                let mut codes = [&code[..512], &code[1..385], &code[3..], &code[2..514]];
                codes[short] = &codes[short][..256];
                let prefix = &values[..len.min(256)];
                let expected = codes.map(|code| {
                    let groups = &code[..code.len() / GROUP * GROUP];
                    (product(prefix, groups) as i32, coarse_product(prefix, groups))
                });
                assert_eq!(dots4(&probe, codes), expected.map(|(whole, _)| whole), "{path:?}");
                let planes = codes.map(|code| &code[..code.len() / GROUP * BLOCK_BYTES]);
                assert_eq!(coarse4(&probe, planes), expected.map(|(_, coarse)| coarse), "{path:?}");
            }
        }
    }
}

#[test]
fn a_probe_of_a_code_is_one_of_its_components() {
    let mut random = Random::new(23);
    let mut probe = Probe::new();
    let mut twin = Probe::new();
    for len in [384, 128, 0, 100, 1_000, if cfg!(miri) { 640 } else { 65_536 }] {
        let values = random_values(&mut random, len);
        let mut code = vec![0; code_bytes(len)];
        pack(&values, &mut code);
        let other = random_code(&mut random, code.len());
        probe.set_code(&code);
        twin.set_signed(&values);
        assert_eq!(probe.len(), twin.len());
        assert_eq!(i64::from(dot(&probe, &other)), product(&values, &other));
        assert_eq!(dot(&twin, &other), dot(&probe, &other));
        assert_eq!(coarse(&probe, high_plane(&other)), coarse_product(&values, &other));
    }
}

#[test]
fn past_the_length_of_exact_sums_all_paths_wrap_alike() {
    let len = if cfg!(miri) { 0 } else { code_bytes(200_000) };
    let code = vec![0; len];
    for path in Path::available() {
        let mut probe = Probe::with_path(path);
        probe.set_code(&code);
        let expected = (len as i64 * 128 * 128) as i32;
        assert_eq!(dot(&probe, &code), expected, "{path:?}");
        assert_eq!(dots4(&probe, [&code; 4]), [expected; 4], "{path:?}");
        let expected = 0.5 * (len as i64 * 128 * 241) as i32 as f32;
        let plane = high_plane(&code);
        assert_eq!(coarse(&probe, plane), expected, "{path:?}");
        assert_eq!(coarse4(&probe, [plane; 4]), [expected; 4], "{path:?}");
    }
}

#[test]
fn setting_a_probe_again_allocates_nothing() {
    let mut probe = Probe::new();
    probe.set_signed(&[1; 384]);
    let memory = probe.groups.as_ptr();
    assert_eq!(memory.addr() % BLOCK_BYTES, 0);
    for len in [0, 1, 384] {
        probe.set_code(&vec![1; len]);
        probe.set_signed(&vec![1; len]);
        assert_eq!(probe.groups.as_ptr(), memory);
    }
}

#[test]
fn the_portable_path_is_the_last_and_anything_may_be_prefetched() {
    assert_eq!(Path::available().last(), Some(Path(Instructions::Portable)));
    assert_eq!(Path::available().next(), Some(Path::best()));
    prefetch::<u8>(&[]);
    prefetch(&[1_u8; 5_000]);
    for len in [0, 63, 64, 192, 1_024, 1_152, 5_000] {
        prefetch_lines(&[1; 5_000][..len]);
    }
    prefetch(&[std::sync::atomic::AtomicU32::new(1)]);
}

/// No processor is sure to have AVX-VNNI; see `x86::twin`.
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
#[test]
fn the_code_around_avx_vnni_is_exact() {
    use x86::twin::vl;

    if !Instructions::Avx512Vnni.are_supported() {
        return;
    }
    let mut random = Random::new(24);
    for len in lengths() {
        let mut probe = Probe::new();
        probe.set_signed(&random_values(&mut random, len));
        let groups = probe.groups.as_slice();
        let codes = [(); 4].map(|()| random_code(&mut random, len));
        let codes = codes.each_ref().map(|code| whole_groups(code));
        let ([a, b, c, d], [e, f, g, h]) = (codes, codes.map(|code| planes(code).0));
        let expected = codes.map(|code| portable::dot(groups, code));
        let expected_coarse = codes.map(|code| portable::coarse(groups, planes(code).0));
        // SAFETY: AVX-512 with VL and VNNI was detected just now, and implies AVX2.
        let (got, first, got_coarse, first_coarse) = unsafe {
            (
                vl::dots4(groups, a, b, c, d),
                vl::dot(groups, a),
                vl::coarse4(groups, e, f, g, h),
                vl::coarse(groups, e),
            )
        };
        assert_eq!((got, first), (expected, expected[0]));
        assert_eq!((got_coarse, first_coarse), (expected_coarse, expected_coarse[0]));
    }
}
