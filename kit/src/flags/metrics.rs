//! What a scrape sees of flags, computed then.

use super::Flags;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use std::fmt;

#[derive(Debug)]
pub(super) struct FlagsCollector {
    flags: Flags,
}

impl FlagsCollector {
    pub(super) fn new(flags: Flags) -> Self {
        Self { flags }
    }
}

impl Collector for FlagsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let published = self.flags.inner.published.load();
        // Known flags only, whose number the program bounds, and what a file of bounded size names.
        if published.snapshot.flags.values().any(|flag| flag.definition.is_some()) {
            let help = "Variants that somebody gets; 0 for those that nobody does";
            let mut family =
                encoder.encode_descriptor("swarm_feature_enabled", help, None, MetricType::Gauge)?;
            for flag in published.snapshot.flags.values() {
                let Some(definition) = &flag.definition else { continue };
                let reachable = flag.reachable();
                for variant in &definition.variants {
                    let value = i64::from(reachable.iter().any(|reached| **reached == **variant));
                    let labels = [
                        ("name", &*flag.key),
                        ("stage", definition.stage.as_str()),
                        ("variant", variant.as_str()),
                    ];
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let revision = i64::try_from(published.snapshot.revision).unwrap_or(i64::MAX);
        let problem = i64::from(published.problem.is_some());
        for (name, help, value) in [
            ("swarm_flags_revision", "Revision of the flags in force", revision),
            (
                "swarm_flags_file_refused",
                "Whether the flags file is bad, so that an earlier content is in force",
                problem,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
