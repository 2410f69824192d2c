//! The machine that figures are of.

use std::fs;

/// What a reader needs to compare figures with those of another machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// Extensions that kernels of any of the programs use.
    pub(crate) extensions: Vec<String>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) system: String,
    /// Processes that wanted to run in the minute before: more than a few say that the machine was
    /// not quiet.
    pub(crate) load_average: Option<f64>,
}

const EXTENSIONS: [&str; 14] = [
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
];

impl Machine {
    /// The one that this program runs on.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            system: std::env::consts::OS.to_owned(),
            ..Self::read(
                &read("/proc/cpuinfo"),
                &read("/proc/meminfo"),
                &read("/proc/loadavg"),
            )
        }
    }

    fn read(cpuinfo: &str, meminfo: &str, loadavg: &str) -> Self {
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim())
        };
        let flags = field("flags")
            .or_else(|| field("Features"))
            .unwrap_or_default();
        let has = |name: &&str| flags.split_whitespace().any(|flag| flag == *name);
        let memory = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let memory = memory.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Self {
            processor: field("model name")
                .unwrap_or(std::env::consts::ARCH)
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            extensions: EXTENSIONS
                .iter()
                .filter(|name| has(name))
                .map(ToString::to_string)
                .collect(),
            memory_bytes: memory.and_then(|kibibytes| kibibytes.checked_mul(1024)),
            system: String::new(),
            load_average: loadavg
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_what_the_kernel_says() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.50GHz\n\
                       flags\t\t: fpu avx2 fma avx512f_not_this avx512_vnni\nprocessor\t: 1\n";
        let machine = Machine::read(
            cpuinfo,
            "MemTotal:   1024 kB\nMemFree: 1 kB\n",
            "1.25 1 1 2/3 4",
        );
        assert_eq!(machine.processor, "Some CPU @ 2.50GHz");
        assert_eq!(machine.extensions, ["avx2", "fma", "avx512_vnni"]);
        assert_eq!(machine.memory_bytes, Some(1 << 20));
        assert_eq!(machine.load_average, Some(1.25));
        let unknown = Machine::read("", "", "");
        assert_eq!(unknown.processor, std::env::consts::ARCH);
        assert_eq!((unknown.memory_bytes, unknown.load_average), (None, None));
    }
}
