//! `swarm call TOOL key=value ...`: a real MCP client against the MCP endpoint.

use super::{endpoints, not_reached};
use crate::{
    cli::CallArgs,
    client::{Http, McpClient, McpError},
    error::{CliError, Failure},
    output::{Show, print},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Calls the tool and prints its result; exit 1 when the tool says that it failed.
pub async fn call(args: &CallArgs) -> Result<(), CliError> {
    let http = Http::pooled();
    let url = match &args.url {
        Some(url) => url.clone(),
        None => mcp_url(&http, args).await?,
    };
    let mut client = McpClient::new(http, url, args.operator.timeout);
    client.initialize().await.map_err(told)?;
    let called = call_tool(&mut client, args).await;
    // The answer is what counts; an open session ends by itself.
    let _ = client.close().await;
    let result = CallResult(called?);
    print(args.operator.output, &result);
    match result.0["isError"].as_bool() {
        Some(true) => Err(CliError::told(Failure::Failed)),
        _ => Ok(()),
    }
}

async fn mcp_url(http: &Http, args: &CallArgs) -> Result<String, CliError> {
    let endpoints = endpoints(http, &args.operator.endpoint, args.operator.timeout).await?;
    endpoints.mcp.ok_or_else(|| {
        let words = format!("the node at {} runs no edge", args.operator.endpoint);
        CliError::new(Failure::NotFound, words).hint("give --url")
    })
}

async fn call_tool(client: &mut McpClient, args: &CallArgs) -> Result<Value, CliError> {
    let arguments = match &args.json {
        Some(text) => object(text)?,
        None if args.arguments.is_empty() => Map::new(),
        None => typed(&schema_of(client, &args.tool).await?, &args.arguments)?,
    };
    let params = json!({ "name": args.tool, "arguments": arguments });
    client.request("tools/call", params).await.map_err(told)
}

fn object(text: &str) -> Result<Map<String, Value>, CliError> {
    serde_json::from_str(text)
        .map_err(|error| CliError::new(Failure::Usage, "--json is not a JSON object").cause(error))
}

async fn schema_of(client: &mut McpClient, tool: &str) -> Result<Value, CliError> {
    let tools = client.tools().await.map_err(told)?;
    let found = tools.iter().find(|listed| listed["name"] == tool);
    if let Some(found) = found {
        return Ok(found["inputSchema"].clone());
    }
    let names = tools.iter().filter_map(|listed| listed["name"].as_str());
    let error = CliError::new(Failure::NotFound, format!("no tool is named `{tool}`"));
    Err(match kit::config::nearest(tool, names) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`swarm tools list` names them"),
    })
}

/// Each value as the schema wants it: text stays text, everything else is JSON.
fn typed(schema: &Value, arguments: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut typed = Map::new();
    for argument in arguments {
        let (key, text) = argument
            .split_once('=')
            .ok_or_else(|| CliError::new(Failure::Usage, format!("`{argument}` is not KEY=VALUE")))?;
        let value = value(&schema["properties"][key], text).map_err(|wanted| {
            CliError::new(Failure::Usage, format!("`{key}` must be {wanted}, not `{text}`"))
        })?;
        typed.insert(key.to_owned(), value);
    }
    Ok(typed)
}

fn value(schema: &Value, text: &str) -> Result<Value, String> {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let fits = |value: &Value| types.iter().any(|wanted| has_type(value, wanted));
    match parsed {
        Some(value) if fits(&value) => Ok(value),
        // Without a type in the schema, what looks like JSON is JSON.
        Some(value) if types.is_empty() => Ok(value),
        _ if types.is_empty() || types.contains(&"string") => Ok(Value::from(text)),
        _ => Err(types.join(" or ")),
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        // A quoted string is text with quotes: people do not write JSON strings in a shell.
        _ => false,
    }
}

fn told(error: McpError) -> CliError {
    match error {
        McpError::Http(error) => not_reached(error),
        McpError::Rpc { code, message, data } => {
            let missing = code == -32602 && message.to_lowercase().contains("unknown tool");
            let failure = if missing { Failure::NotFound } else { Failure::Failed };
            let cause = match data {
                Some(data) => format!("JSON-RPC error {code}: {data}"),
                None => format!("JSON-RPC error {code}"),
            };
            CliError::new(failure, message).cause(cause)
        }
        other => CliError::new(Failure::Failed, other.to_string()),
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct CallResult(Value);

impl Show for CallResult {
    /// Text as it is; other content by its kind and size.
    fn table(&self, _wide: bool) -> String {
        let content = self.0["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        if content.is_empty() && !self.0["structuredContent"].is_null() {
            return crate::output::pretty(&self.0["structuredContent"]);
        }
        content.iter().map(item).collect::<Vec<_>>().join("\n")
    }
}

fn item(content: &Value) -> String {
    if let Some(text) = content["text"].as_str() {
        return text.trim_end().to_owned();
    }
    let kind = content["type"].as_str().unwrap_or("unknown");
    let data = content["data"].as_str().map_or(0, str::len);
    let uri = content["uri"].as_str().or(content["resource"]["uri"].as_str()).unwrap_or_default();
    format!("[{kind} {uri}{} bytes of base64; -o json prints it]", data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(given: &[&str]) -> Result<Map<String, Value>, CliError> {
        let schema = json!({"properties": {
            "zone": {"type": "string"}, "count": {"type": "integer"}, "deep": {"type": "object"},
            "maybe": {"type": ["number", "null"]}, "either": {"type": ["string", "boolean"]}}});
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        typed(&schema, &given)
    }

    #[test]
    fn arguments_take_the_type_of_the_schema() {
        let typed = arguments(&[
            "zone=1",
            "count=3",
            "deep={\"a\":[1]}",
            "maybe=null",
            "either=true",
            "free=[1]",
            "word=x=y",
        ]);
        let wanted = json!({"zone": "1", "count": 3, "deep": {"a": [1]}, "maybe": null,
            "either": true, "free": [1], "word": "x=y"});
        assert_eq!(Value::Object(typed.expect("all fit")), wanted);
    }

    #[test]
    fn a_value_of_another_type_is_a_usage_error() {
        let error = arguments(&["count=three"]).expect_err("not a number");
        assert_eq!(error.failure, Failure::Usage);
        assert_eq!(error.message, "`count` must be integer, not `three`");
        assert_eq!(arguments(&["count"]).expect_err("no value").message, "`count` is not KEY=VALUE");
    }

    #[test]
    fn text_is_printed_as_it_is() {
        let result = CallResult(json!({"content": [
            {"type": "text", "text": "hello\n"}, {"type": "image", "data": "AAAA"}]}));
        assert_eq!(result.table(false), "hello\n[image 4 bytes of base64; -o json prints it]");
    }
}
