#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tala_store_fuzz::replay::run(bytes);
});
