//! Peers on the BEAM: an ETS table, and a gen_server sharded by 16, in one `escript` that
//! answers a number for each question.

use super::{FEW, Samples};
use anyhow::{Context, Result};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

const SCRIPT: &str = include_str!("../../peers/registry.escript");

/// Figure and question.
const QUESTIONS: [(&str, &str); 8] = [
    ("ETS lookup, 10K names, 2 readers", "ets few 0"),
    ("ETS lookup, 10K names, 2 readers, 5 % writes", "ets few 5"),
    ("ETS lookup, 1M names, 2 readers", "ets many 0"),
    ("ETS lookup, 1M names, 2 readers, 5 % writes", "ets many 5"),
    ("ETS insert, 2 writers", "insert"),
    ("gen_server x16 lookup, 10K names", "server_lookup"),
    ("gen_server x16 register", "server_register"),
    ("gen_server x16 lookup, 10K names, 5 % writes", "server_mixed"),
];

pub(super) struct Beam {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Beam {
    /// Starts the script with its tables filled.
    pub(super) fn start(many: u64) -> Result<Beam> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("registry.escript");
        std::fs::write(&script, SCRIPT)?;
        let mut command = Command::new("escript");
        command.arg(&script).args([FEW.to_string(), many.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut beam = Beam { child, questions, answers, _folder: folder };
        let ready = beam.answer()?;
        anyhow::ensure!(ready == "ready", "it printed {ready:?}");
        Ok(beam)
    }

    pub(super) fn round(&mut self, samples: &mut Samples) -> Result<()> {
        for (figure, question) in QUESTIONS {
            writeln!(self.questions, "{question} {}", samples.length.as_millis())?;
            let answer = self.answer()?;
            samples.add(figure, answer.parse().with_context(|| format!("{question}: {answer:?}"))?);
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
