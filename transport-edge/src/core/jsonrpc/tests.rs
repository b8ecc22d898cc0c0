use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn code(body: &str) -> Option<i32> {
    scan(body.as_bytes()).err().map(|error| error.code)
}

#[test]
fn a_call_is_read() {
    let body = br#" {"jsonrpc":"2.0","id":"a\u0031","method":"tools/call","params":{"name":"t_\u0061dd","arguments":{"id":[1,{"x":"}"}]},"_meta":{"progressToken":7,"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}} "#;
    let envelope = scan(body).unwrap();
    assert_eq!(envelope.kind, Kind::Request);
    assert_eq!(envelope.id(body), Some(br#""a\u0031""#.as_slice()));
    assert_eq!(envelope.method(body), "tools/call");
    assert_eq!(envelope.text(body, Field::Name).unwrap(), "t_add");
    assert_eq!(envelope.raw(body, Field::Arguments), Some(br#"{"id":[1,{"x":"}"}]}"#.as_slice()));
    assert_eq!(envelope.raw(body, Field::MetaProgressToken), Some(b"7".as_slice()));
    assert_eq!(envelope.text(body, Field::MetaProtocolVersion).unwrap(), "2026-07-28");
    assert!(!envelope.has(Field::Uri));
}

#[test]
fn kinds() {
    let kind = |body: &str| scan(body.as_bytes()).unwrap().kind;
    assert_eq!(kind(r#"{"jsonrpc":"2.0","method":"m"}"#), Kind::Notification);
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":0,"method":"m","params":null}"#), Kind::Request);
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true}}"#), Kind::Response);
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":""}}"#), Kind::Error);
    let body = br#"{"jsonrpc":"2.0","id":1,"result":{"isError":true}}"#;
    assert!(scan(body).unwrap().is_tool_error(body));
}

/// What parsers have disagreed about. Each is refused, with the code that tells why.
#[test]
fn smuggling_corpus() {
    let deep = |n| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{}{}}}}}"#,
            "[".repeat(n),
            "]".repeat(n)
        )
    };
    assert_eq!(code(&deep(62)), None);
    assert_eq!(code(&deep(63)), Some(INVALID_REQUEST));
    let wide =
        |n| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":[{}0]}}}}"#, "0,".repeat(n));
    assert_eq!(code(&wide(90_000)), None);
    assert_eq!(code(&wide(100_000)), Some(INVALID_REQUEST));

    let refused = [
        r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","\u006dethod":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1,"I\u0044":2,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","ID":1,"method":"a"}"#,
        r#"{"JSONRPC":"2.0","jsonrpc":"2.0","id":1,"method":"a"}"#,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"param\u{17f}\":{}}",
        r#"{"jsonrpc":"2.0","id":1,"method":"a","param\u017f":{}}"#,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"params\":{\"ta\u{17f}\u{212a}\":1}}",
        r#"{"jsonrpc":"2.0","id":1,"method":"a","x":1,"x":2}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","x":1,"X":2}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"a","name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"a","Name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"progressToken":1,"progresstoken":2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"a","io.modelcontextprotocol\/protocolVersion":"b"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":3}}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1e2,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
        r#"{"jsonrpc":2.0,"id":1,"method":"a"}"#,
        r#"{"id":1,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"a"}]"#,
        r#""just text""#,
        "7",
    ];
    for body in refused {
        assert_eq!(code(body), Some(INVALID_REQUEST), "{body}");
    }

    let malformed = [
        "",
        " ",
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}",
        r#"{"jsonrpc":"2.0","id":1,"method":"a"} {}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a"}x"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a",}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":NaN}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":Infinity}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":1e999}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":+1}}"#,
        r#"{"jsonrpc":"2.0","id":01,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":"\ud800"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","\udc00":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":"\x"}}"#,
        r#"{'jsonrpc':'2.0','id':1,'method':'a'}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a" /* comment */}"#,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}",
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":[1,2}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":tru}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a""#,
    ];
    for body in malformed {
        assert_eq!(code(body), Some(PARSE_ERROR), "{body}");
    }
    assert_eq!(scan(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}").unwrap_err().position, 34);
    let overlong = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"params\":{\"a\":\"\xc0\xaf\"}}";
    assert_eq!(scan(overlong).unwrap_err().code, PARSE_ERROR);
}

#[test]
fn a_backend_may_cut_an_emoji_but_not_in_a_routed_key() {
    let body = br#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"text":"\ud83d"}]}}"#;
    assert!(scan(body).is_err());
    assert!(scan_backend(body).is_ok());
    assert!(scan_backend(br#"{"jsonrpc":"2.0","id":1,"result":{"\ud83d":1}}"#).is_err());
}

#[test]
fn keys_inside_arguments_are_the_tools_business() {
    assert_eq!(
        code(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":{"a":1,"A":2,"a":3}}}"#),
        None
    );
}

#[test]
fn batches_are_split_and_bounded() {
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#;
    let body = format!("[{one} , {one}]");
    let spans = scan_batch(body.as_bytes()).unwrap();
    assert!(is_batch(body.as_bytes()));
    assert_eq!(spans.len(), 2);
    assert!(spans.iter().all(|span| scan(span.of(body.as_bytes())).is_ok()));
    assert!(scan_batch(b"[]").is_err());
    assert!(scan_batch(b"[1]]").is_err());
    assert!(scan_batch(format!("[{}1]", "1,".repeat(100)).as_bytes()).is_err());
}

fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[ -~]{0,12}", "\\PC{0,6}", "[\u{0}-\u{20}\"\\\\]{0,4}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |n| n.is_finite().then(|| Value::from(n))),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[ -~]{0,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any message that serde_json writes is taken, compact or pretty, and the spans are right.
    #[test]
    fn spans_are_the_values(arguments in json(), name in "\\PC{0,10}", id in "\\PC{0,10}", token in any::<i64>(), pretty: bool) {
        let message = serde_json::json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": name, "arguments": arguments, "_meta": {"progressToken": token}},
        });
        let body = match pretty {
            true => serde_json::to_vec_pretty(&message).unwrap(),
            false => serde_json::to_vec(&message).unwrap(),
        };
        let whole: Value = serde_json::from_slice(&body).unwrap();
        let envelope = scan(&body).unwrap();
        prop_assert_eq!(envelope.text(&body, Field::Name).unwrap(), name);
        prop_assert_eq!(text(envelope.id(&body).unwrap()).unwrap(), id);
        let read: Value = serde_json::from_slice(envelope.raw(&body, Field::Arguments).unwrap()).unwrap();
        prop_assert_eq!(&read, &whole["params"]["arguments"]);
        let params: Value = serde_json::from_slice(envelope.raw(&body, Field::Params).unwrap()).unwrap();
        prop_assert_eq!(&params, &whole["params"]);
    }

    /// Inside `arguments`, where no rule of ours but JSON's holds, we accept what serde_json
    /// accepts and nothing else, whatever bytes come.
    #[test]
    fn accepts_what_serde_json_accepts(value in json(), cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..4)) {
        let mut inner = serde_json::to_vec(&value).unwrap();
        for (place, byte, how) in cuts {
            if inner.is_empty() { break; }
            let at = place.index(inner.len());
            match how {
                0 => { inner.remove(at); }
                1 => inner.insert(at, byte),
                _ => if let Some(old) = inner.get_mut(at) { *old = byte },
            }
        }
        let body = [br#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":"#.as_slice(), &inner, b"}}"].concat();
        let theirs = serde_json::from_slice::<Value>(&inner).is_ok();
        let ours = scan(&body);
        // Bytes that close the object early make another message; only our verdict on the
        // value alone is compared then.
        if theirs {
            prop_assert!(ours.is_ok(), "{:?} {:?}", String::from_utf8_lossy(&inner), ours);
        } else if serde_json::from_slice::<Value>(&body).is_err() {
            prop_assert!(ours.is_err(), "{:?}", String::from_utf8_lossy(&inner));
        }
    }

    /// No bytes make it panic, and what is taken is JSON to serde_json too.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&bytes);
        let _ = scan_batch(&bytes);
        let _ = scan_backend(&bytes);
    }
}
