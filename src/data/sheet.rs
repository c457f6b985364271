//! Tables as people have them: separated by commas, semicolons or tabs, in UTF-8, UTF-16 or an old Western encoding, with
//! any line ends. What was guessed is said; what is no table is named.

use super::notes::Notes;
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A table's text.
#[derive(Debug)]
pub(super) struct Sheet {
    /// In UTF-8, without a mark of the byte order.
    pub text: String,
    /// What stands between columns.
    pub delimiter: u8,
    /// It was in Windows-1252, whose bytes may be a file system's too.
    western: bool,
}

/// What Windows-1252 has in the places of Latin-1's control characters, from 0x80 on; zeros are unused.
const WINDOWS: [u16; 32] = [
    0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0,
    0x017d, 0, 0, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a,
    0x0153, 0, 0x017e, 0x0178,
];

impl Sheet {
    /// Reads a table's text.
    pub fn read(path: &Path, notes: &Notes) -> Result<Sheet> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let p = path.display();
        let no_table = |what: &str| Err(Error::input(format!("{p} is {what}; save the table as CSV")));
        if bytes.starts_with(b"PK\x03\x04") {
            return no_table("an Excel or OpenDocument workbook (a zip archive)");
        }
        if bytes.starts_with(b"\xd0\xcf\x11\xe0") {
            return no_table("an old Excel workbook");
        }
        let mut western = false;
        let text = match (encoding(&bytes), String::from_utf8(bytes)) {
            (Encoding::Wide { big, mark }, Err(e)) => wide(&p.to_string(), &e.into_bytes()[mark..], big)?,
            (Encoding::Wide { big, mark }, Ok(t)) => wide(&p.to_string(), &t.as_bytes()[mark..], big)?,
            (Encoding::Plain, Ok(t)) => t.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(t),
            (Encoding::Plain, Err(e)) => {
                western = true;
                notes.about("tables that are no UTF-8 are read as Windows-1252 (Latin-1)", p.to_string());
                e.into_bytes().into_iter().map(western_char).collect()
            }
        };
        if text.contains('\0') {
            return no_table("no text (it holds zeros)");
        }
        // Excel's own first line.
        let told = text.lines().next().and_then(|l| l.trim_matches('"').strip_prefix("sep="));
        let told = told.and_then(|d| d.bytes().next()).filter(u8::is_ascii);
        let text = match told {
            // An empty line takes its place, so that lines keep their numbers.
            Some(_) => {
                let rest =
                    text.split_once(['\n', '\r']).map_or("", |(_, rest)| rest.trim_start_matches('\n'));
                format!("\n{rest}")
            }
            None => text,
        };
        let delimiter = told.unwrap_or_else(|| guessed(&text));
        if delimiter != b',' {
            let name =
                if delimiter == b'\t' { "tabs".into() } else { format!("`{}`", char::from(delimiter)) };
            notes.about(format!("tables with {name} between the columns are read so"), p.to_string());
        }
        Ok(Sheet { text, delimiter, western })
    }

    /// The file that a cell names. A name in the table's own encoding may stand on the disk in the same bytes.
    pub fn file(&self, folder: &Path, cell: &str) -> PathBuf {
        let path = folder.join(cell);
        #[cfg(unix)]
        if self.western && !path.exists() {
            use std::os::unix::ffi::OsStrExt;
            let bytes: Option<Vec<u8>> = cell.chars().map(western_byte).collect();
            let raw = bytes.map(|b| folder.join(std::ffi::OsStr::from_bytes(&b)));
            if let Some(raw) = raw.filter(|r| r.exists()) {
                return raw;
            }
        }
        path
    }
}

enum Encoding {
    /// One byte a character, or UTF-8.
    Plain,
    /// UTF-16, behind so many bytes of a mark.
    Wide { big: bool, mark: usize },
}

fn encoding(bytes: &[u8]) -> Encoding {
    match bytes {
        [0xff, 0xfe, ..] => Encoding::Wide { big: false, mark: 2 },
        [0xfe, 0xff, ..] => Encoding::Wide { big: true, mark: 2 },
        // Western text in UTF-16 has a zero in every second byte.
        [0, x, 0, y, ..] if *x != 0 && *y != 0 => Encoding::Wide { big: true, mark: 0 },
        [x, 0, y, 0, ..] if *x != 0 && *y != 0 => Encoding::Wide { big: false, mark: 0 },
        _ => Encoding::Plain,
    }
}

fn wide(p: &str, bytes: &[u8], big: bool) -> Result<String> {
    let pairs = bytes.chunks_exact(2).map(|c| [c[0], c[1]]);
    let units: Vec<u16> =
        pairs.map(|c| if big { u16::from_be_bytes(c) } else { u16::from_le_bytes(c) }).collect();
    match String::from_utf16(&units) {
        Ok(text) if bytes.len().is_multiple_of(2) => Ok(text),
        _ => Err(Error::input(format!("{p} is damaged UTF-16; save the table as CSV in UTF-8"))),
    }
}

fn western_char(byte: u8) -> char {
    match byte {
        0x80..=0x9f => char::from_u32(u32::from(WINDOWS[usize::from(byte - 0x80)])).filter(|c| *c != '\0'),
        _ => Some(char::from(byte)),
    }
    .unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(unix)]
fn western_byte(c: char) -> Option<u8> {
    let special = WINDOWS.iter().position(|w| *w != 0 && u32::from(*w) == u32::from(c));
    special.map(|i| 0x80 + i as u8).or_else(|| u8::try_from(u32::from(c)).ok())
}

/// What stands between the columns of the first line: the one of the usual characters that it has most of.
fn guessed(text: &str) -> u8 {
    let header = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    let mut quoted = false;
    let mut counts = [(b',', 0usize), (b';', 0), (b'\t', 0), (b'|', 0)];
    for c in header.bytes() {
        quoted ^= c == b'"';
        if let Some((_, n)) = counts.iter_mut().find(|(d, _)| *d == c && !quoted) {
            *n += 1;
        }
    }
    // The first of equals: a comma.
    counts.iter().rev().max_by_key(|(_, n)| *n).map_or(b',', |(d, _)| *d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Result<Sheet>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.csv");
        fs::write(&path, bytes).unwrap();
        let notes = Notes::default();
        (Sheet::read(&path, &notes), notes.lines())
    }

    #[test]
    fn tables_in_any_dress_are_the_same_table() {
        let want = "subject,t1\nJürgen,a.nii\n";
        let utf16 = |big: bool, mark: bool| {
            let units = mark.then_some(0xfeff).into_iter().chain(want.encode_utf16());
            units.flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect::<Vec<u8>>()
        };
        let latin: Vec<u8> = want.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        let mut all = vec![want.as_bytes().to_vec(), [b"\xef\xbb\xbf", want.as_bytes()].concat(), latin];
        all.extend([utf16(false, true), utf16(true, true), utf16(false, false), utf16(true, false)]);
        for (i, bytes) in all.iter().enumerate() {
            let (sheet, notes) = read(bytes);
            let sheet = sheet.unwrap_or_else(|e| panic!("{i}: {e}"));
            assert_eq!((sheet.text.as_str(), sheet.delimiter), (want, b','), "{i}");
            assert_eq!(
                notes.iter().filter(|n| n.contains("Windows-1252")).count(),
                usize::from(i == 2),
                "{i}"
            );
        }
    }

    #[test]
    fn the_columns_separator_is_guessed_and_said() {
        for (text, delimiter) in [
            ("subject;t1;\"a,b,c\"\n", b';'),
            ("subject\tt1\n", b'\t'),
            ("subject|t1\n", b'|'),
            ("sep=;\nsubject;t1\n", b';'),
            ("sep=;\r\nsubject;t1\r\n", b';'),
        ] {
            let (sheet, notes) = read(text.as_bytes());
            let sheet = sheet.unwrap();
            assert_eq!(sheet.delimiter, delimiter, "{text}");
            assert!(sheet.text.trim_start().starts_with("subject"), "{:?}", sheet.text);
            assert_eq!(notes.len(), 1, "{notes:?}");
        }
        let (sheet, notes) = read(b"subject\ns1\n");
        assert_eq!((sheet.unwrap().delimiter, notes.len()), (b',', 0));
    }

    #[test]
    fn workbooks_are_named() {
        for (bytes, what) in [
            (&b"PK\x03\x04\x14\0"[..], "workbook"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel"),
            (b"\xff\xfea", "damaged UTF-16"),
            (b"subject\0\0\0,t1", "no text"),
        ] {
            let m = read(bytes).0.expect_err("no table").to_string();
            assert!(m.contains(what) && m.contains("CSV") && m.contains("m.csv"), "{m}");
        }
    }
}
