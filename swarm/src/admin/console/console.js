"use strict";
const token = new URLSearchParams(location.search).get("token");
const byId = (id) => document.getElementById(id);
const seconds = (ms) => `${Math.round(ms / 1000)} s`;

async function read(path) {
  const answer = await fetch(`/api/v1/${path}`);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// Only text goes into the page, never markup.
function fill(id, head, rows) {
  const line = (tag, cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const element = document.createElement(tag);
      element.append(cell instanceof Node ? cell : String(cell ?? "-"));
      row.append(element);
    }
    return row;
  };
  byId(id).replaceChildren(line("th", head), ...rows.map((cells) => line("td", cells)));
}

function control(verb, node) {
  const button = document.createElement("button");
  button.textContent = verb;
  button.onclick = async () => {
    button.disabled = true;
    const headers = { Authorization: `Bearer ${token}` };
    await fetch(`/api/v1/demo/${verb}/${node}`, { method: "POST", headers });
    refresh();
  };
  return button;
}

function nodes(status, demo) {
  const runs = new Map((demo?.nodes ?? []).map((node) => [node.name, node.running]));
  const rows = status.nodes.map((node) => {
    const verb = runs.get(node.name) ? "kill" : "start";
    const action = token && runs.has(node.name) ? control(verb, node.name) : "";
    return [node.name, node.state, node.phi.toFixed(1), node.mcp, Object.keys(node.services).join(" "), action];
  });
  fill("nodes", ["name", "state", "φ", "MCP", "services", ""], rows);
}

function show(status, sessions, demo) {
  byId("health").textContent = status.health;
  byId("reasons").replaceChildren(...status.reasons.map((reason) => {
    const item = document.createElement("li");
    item.textContent = reason;
    return item;
  }));
  const left = status.failure_tolerance;
  const raft = status.raft;
  byId("facts").textContent =
    `leader ${raft?.leader ?? "none"}, term ${raft?.term ?? "-"}; nodes that may be lost now: ` +
    `calls ${left.calls}, session reads ${left.session_reads}, session writes ${left.session_writes}, ` +
    `coordinator ${left.coordinator}; asked ${status.node}, up ${seconds(status.uptime_ms)}`;
  nodes(status, demo);
  fill("backends", ["name", "state", "tools", "calls", "errors", "reason"],
    status.backends.map((b) => [b.name, b.state, b.tools, b.calls, b.errors, b.reason]));
  fill("sessions", ["session", "held by", "epoch", "client", "age", "streams"],
    sessions.sessions.map((s) => [s.id_hash, s.anchor, s.epoch, s.client, seconds(s.age_ms), s.streams]));
}

let since = null;
async function refresh() {
  try {
    const [status, sessions] = await Promise.all([read("status"), read("sessions")]);
    const demo = token ? await read("demo").catch(() => null) : null;
    show(status, sessions, demo);
    since = null;
    byId("stale").hidden = true;
  } catch (error) {
    since ??= new Date();
    byId("stale").hidden = false;
    byId("stale").textContent = `stale since ${since.toLocaleTimeString()}: ${error.message}`;
  }
}

refresh();
setInterval(refresh, 2000);
