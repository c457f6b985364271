//! What a cubin tells of its kernels beside the compiler's log: an ELF file with a few sections for each.

use gan::device::cuda::nvrtc::Image;
use gan::device::cuda::usage;
use gan::device::limits::Compiled;

/// What one kernel demands of its launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Registers, static shared memory, launch bound.
    pub compiled: Compiled,
    /// Bytes of its parameters.
    pub parameters: usize,
}

struct Section<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

fn number(bytes: &[u8], at: usize, n: usize) -> usize {
    bytes[at..at + n].iter().rev().fold(0, |v, &b| v << 8 | usize::from(b))
}

fn sections(elf: &[u8]) -> Vec<Section<'_>> {
    assert!(elf.starts_with(b"\x7fELF\x02"), "a cubin");
    let (table, count, names) = (number(elf, 40, 8), number(elf, 60, 2), number(elf, 62, 2));
    let header = |i: usize| &elf[table + 64 * i..][..64];
    let place = |i: usize| {
        let h = header(i);
        // One that takes no room in the file, such as shared memory, has no bytes here.
        let size = if number(h, 4, 4) == 8 { 0 } else { number(h, 32, 8) };
        (number(h, 24, 8), size)
    };
    let (texts, length) = place(names);
    let texts = &elf[texts..texts + length];
    let name = |i: usize| {
        let rest = &texts[number(header(i), 0, 4)..];
        std::str::from_utf8(&rest[..rest.iter().position(|&b| b == 0).expect("an end")]).expect("a name")
    };
    let of = |i: usize| {
        let (at, size) = place(i);
        Section { name: name(i), bytes: &elf[at..at + size] }
    };
    (0..count).map(of).collect()
}

/// The facts of one kernel.
pub fn facts(image: &Image, kernel: &str) -> Facts {
    let log = usage::parse(&image.log);
    let log = log.iter().find(|k| k.kernel == kernel).unwrap_or_else(|| panic!("no {kernel} in the log"));
    let wanted = format!(".nv.info.{kernel}");
    let all = sections(&image.bytes);
    let info = all.iter().find(|s| s.name == wanted).unwrap_or_else(|| panic!("no {wanted}")).bytes;
    let (mut threads, mut parameters, mut at) = (1024, 0, 0);
    // Attributes: a format (4: with so many bytes behind it), a number, a value or a size.
    while at + 4 <= info.len() {
        let (format, attribute, value) = (info[at], info[at + 1], number(info, at + 2, 2));
        match (format, attribute) {
            (4, 0x05) => threads = number(info, at + 4, 4), // the launch bound along x
            (3, 0x19) => parameters = value,
            _ => {}
        }
        at += 4 + if format == 4 { value } else { 0 };
    }
    let compiled =
        Compiled { registers: log.registers as usize, static_shared: log.shared as usize, threads };
    Facts { compiled, parameters }
}
