//! A share of the tests, for one of several processes that do all of them together.

/// Process `index` of `of`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shard {
    pub index: usize,
    pub of: usize,
}

impl Shard {
    /// All there is.
    pub const WHOLE: Shard = Shard { index: 0, of: 1 };

    /// `i/n`, as the variable GAN_SHARD has it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of => Ok(Shard { index, of }),
            _ => Err(format!("GAN_SHARD = {text:?}: write i/n with i from 0 to n - 1, such as 0/4")),
        }
    }

    /// Whether what has this number is this process's.
    pub fn takes(&self, number: usize) -> bool {
        number % self.of == self.index
    }

    /// Its share of a list. Neighbours, which take about as long, go to different processes; lists of other numbers begin with
    /// another one.
    pub fn share<T>(&self, number: usize, all: Vec<T>) -> Vec<T> {
        all.into_iter().enumerate().filter(|(i, _)| self.takes(number + i)).map(|(_, item)| item).collect()
    }
}
