//! The binary knows the flags of the roll-out from its start on.

#[test]
fn gates_that_name_no_flag_or_one_that_is_not_built_end_the_start_with_78() {
    let binary = env!("CARGO_BIN_EXE_coordinator-svc");
    kit::test::refuses_gates(binary, "registry.shardin=on", "did you mean registry.sharding?");
    kit::test::refuses_gates(binary, "session.tiering=on", "it is absent in this build");
}
