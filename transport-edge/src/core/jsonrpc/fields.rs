//! The fields that are noted, by level.

/// A level whose keys are checked and noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Message,
    Params,
    Meta,
    Result,
    ResultMeta,
    Error,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $level:ident $name:literal,)*) => {
        /// A place in a message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Field {
            $($(#[$doc])* $variant,)*
        }

        impl Field {
            /// How many there are.
            pub const COUNT: usize = [$(Field::$variant),*].len();
        }

        /// Level, key and field of each.
        pub(crate) const FIELDS: [(Level, &str, Field); Field::COUNT] =
            [$((Level::$level, $name, Field::$variant)),*];
    };
}

fields! {
    /// `jsonrpc`
    Jsonrpc = Message "jsonrpc",
    /// `id`
    Id = Message "id",
    /// `method`
    Method = Message "method",
    /// `params`
    Params = Message "params",
    /// `result`
    Result = Message "result",
    /// `error`
    Error = Message "error",
    /// `params.name`: tool or prompt
    Name = Params "name",
    /// `params.arguments`
    Arguments = Params "arguments",
    /// `params._meta`
    Meta = Params "_meta",
    /// `params.uri`: resource
    Uri = Params "uri",
    /// `params.cursor`
    Cursor = Params "cursor",
    /// `params.protocolVersion` of `initialize`
    ProtocolVersion = Params "protocolVersion",
    /// `params.clientInfo` of `initialize`
    ClientInfo = Params "clientInfo",
    /// `params.capabilities` of `initialize`
    Capabilities = Params "capabilities",
    /// `params.level` of `logging/setLevel` and `notifications/message`
    LogLevel = Params "level",
    /// `params.ref` of `completion/complete`
    Reference = Params "ref",
    /// `params.requestId` of `notifications/cancelled`
    RequestId = Params "requestId",
    /// `params.reason` of `notifications/cancelled`
    Reason = Params "reason",
    /// `params.progressToken` of `notifications/progress`
    ProgressToken = Params "progressToken",
    /// `params.requestState` of a modern retry
    RequestState = Params "requestState",
    /// `params.inputResponses` of a modern retry
    InputResponses = Params "inputResponses",
    /// `params.notifications` of `subscriptions/listen`: the filter
    Notifications = Params "notifications",
    /// `params.task` (2025-11-25)
    Task = Params "task",
    /// `params.taskId`
    TaskId = Params "taskId",
    /// `params._meta.progressToken`
    MetaProgressToken = Meta "progressToken",
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`
    MetaProtocolVersion = Meta "io.modelcontextprotocol/protocolVersion",
    /// `params._meta["io.modelcontextprotocol/clientInfo"]`
    MetaClientInfo = Meta "io.modelcontextprotocol/clientInfo",
    /// `params._meta["io.modelcontextprotocol/clientCapabilities"]`
    MetaClientCapabilities = Meta "io.modelcontextprotocol/clientCapabilities",
    /// `params._meta["io.modelcontextprotocol/logLevel"]`
    MetaLogLevel = Meta "io.modelcontextprotocol/logLevel",
    /// `params._meta["io.modelcontextprotocol/subscriptionId"]`
    MetaSubscriptionId = Meta "io.modelcontextprotocol/subscriptionId",
    /// `params._meta["io.modelcontextprotocol/related-task"]`
    MetaRelatedTask = Meta "io.modelcontextprotocol/related-task",
    /// `result.resultType`
    ResultType = Result "resultType",
    /// `result.isError`
    IsError = Result "isError",
    /// `result._meta`
    ResultMeta = Result "_meta",
    /// `result.nextCursor`
    NextCursor = Result "nextCursor",
    /// `result.protocolVersion` of `initialize`
    ResultProtocolVersion = Result "protocolVersion",
    /// `result.capabilities` of `initialize` and `server/discover`
    ResultCapabilities = Result "capabilities",
    /// `result.serverInfo` of `initialize`
    ResultServerInfo = Result "serverInfo",
    /// `result.instructions`
    ResultInstructions = Result "instructions",
    /// `result.supportedVersions` of `server/discover`
    SupportedVersions = Result "supportedVersions",
    /// `result.ttlMs`
    TtlMs = Result "ttlMs",
    /// `result.cacheScope`
    CacheScope = Result "cacheScope",
    /// `result.requestState` of `input_required`
    ResultRequestState = Result "requestState",
    /// `result.inputRequests` of `input_required`
    InputRequests = Result "inputRequests",
    /// `result.tools`
    Tools = Result "tools",
    /// `result.prompts`
    Prompts = Result "prompts",
    /// `result.resources`
    Resources = Result "resources",
    /// `result.resourceTemplates`
    ResourceTemplates = Result "resourceTemplates",
    /// `result._meta["io.modelcontextprotocol/serverInfo"]`
    ResultMetaServerInfo = ResultMeta "io.modelcontextprotocol/serverInfo",
    /// `result._meta["io.modelcontextprotocol/subscriptionId"]`
    ResultMetaSubscriptionId = ResultMeta "io.modelcontextprotocol/subscriptionId",
    /// `error.code`
    ErrorCode = Error "code",
    /// `error.message`
    ErrorMessage = Error "message",
    /// `error.data`
    ErrorData = Error "data",
}
