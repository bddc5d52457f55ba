//! Any data under any contract, old ones too: refused, or lifted to the newest version, where it stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_model::contract::{self, CONTRACT_FILES};
use weir_model::{Object, canonical};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = bytes.split_first() else { return };
    let (event_type, version, _) = CONTRACT_FILES[usize::from(*choice) % CONTRACT_FILES.len()];
    let Ok(data) = serde_json::from_slice::<Object>(text) else { return };
    let contracts = contract::standard().expect("contracts");
    let Ok(accepted) = contracts.accept(event_type, version, data) else { return };
    assert_eq!(accepted.version, contracts.newest(event_type));
    let again = contracts.accept(event_type, &accepted.version, accepted.data.clone()).expect("accepted again");
    assert_eq!(canonical::object_text(&again.data), canonical::object_text(&accepted.data));
});
