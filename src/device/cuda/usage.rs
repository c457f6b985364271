//! What a compiled kernel takes of a multiprocessor, as the compiler's log tells.

/// Registers, shared memory and spills of one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// The kernel's name.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory known when compiling (dynamic shared memory comes on top).
    pub shared: u32,
    /// Bytes of registers spilled to memory, stores and loads together.
    pub spills: u32,
    /// Bytes of stack of a thread.
    pub stack: u32,
}

/// Reads the log of a compilation with `--ptxas-options=-v`.
pub fn parse(log: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    let number_before = |line: &str, word: &str| -> u32 {
        let before = line.split(word).next().filter(|b| b.len() < line.len()).unwrap_or_default();
        before.split_whitespace().next_back().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    for line in log.lines() {
        if let Some(rest) = line.split("entry function '").nth(1) {
            let kernel = rest.split('\'').next().unwrap_or_default().to_string();
            found.push(Usage { kernel, ..Usage::default() });
        }
        let Some(last) = found.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            last.stack = number_before(line, " bytes stack frame");
            last.spills =
                number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
        }
        if line.contains(" registers") {
            last.registers = number_before(line, " registers");
            last.shared = number_before(line, " bytes smem");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_log() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'conv' for 'sm_90'\n\
                   ptxas info    : Function properties for conv\n    \
                   8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\n\
                   ptxas info    : Used 126 registers, used 1 barriers, 3072 bytes smem, 492 bytes cmem[0]\n\
                   ptxas info    : Compiling entry function 'b' for 'sm_90'\n\
                   ptxas info    : Used 7 registers";
        let conv = Usage { kernel: "conv".into(), registers: 126, shared: 3072, spills: 40, stack: 8 };
        assert_eq!(parse(log), [conv, Usage { kernel: "b".into(), registers: 7, ..Usage::default() }]);
    }
}
