//! Metrics of the node itself, computed at the scrape.

use crate::{bus::Bus, clock::Clock};
use crate::{host::Context, readiness::Readiness, supervise::Tasks};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use std::{fmt, sync::Arc, time::Instant};

/// Ready, bus, tasks, uptime.
pub(crate) struct ProcessCollector {
    readiness: Readiness,
    tasks: Tasks,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    start: Instant,
}

impl ProcessCollector {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            readiness: context.readiness.clone(),
            tasks: context.tasks.clone(),
            bus: context.bus.clone(),
            clock: context.clock.clone(),
            start: context.clock.now(),
        }
    }

    fn gauges(&self) -> [(&'static str, &'static str, f64); 4] {
        let uptime = self.clock.now().saturating_duration_since(self.start).as_secs_f64();
        let flag = |holds: bool| if holds { 1.0 } else { 0.0 };
        [
            ("swarm_node_ready", "Whether every readiness condition holds", flag(self.readiness.ready())),
            ("swarm_bus_connected", "Whether messages flow on the bus", flag(self.bus.connected())),
            ("swarm_node_tasks", "Tasks that run now", self.tasks.running() as f64),
            ("swarm_node_uptime_seconds", "Time since the start", uptime),
        ]
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in self.gauges() {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in [
            ("swarm_node_task_restarts", "Tasks started again after they ended", self.tasks.restarts()),
            ("swarm_node_task_panics", "Tasks that panicked", self.tasks.panics()),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ProcessCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessCollector")
    }
}
