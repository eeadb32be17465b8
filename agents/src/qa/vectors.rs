//! The passages' embeddings in memory, a byte a dimension, by the key of what they say; and a file of them, so that
//! nothing is embedded twice.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Memory for them, bytes: an eighth of 512 MiB. Of 384 dimensions that is 170,000 passages, of 1,536 still 43,000.
const MAX_BYTES: usize = 64 << 20;
/// Most dimensions that a model may have: larger than any.
const MAX_DIMENSIONS: usize = 8192;
/// Vectors that are allocated, and compared, together.
const BLOCK: usize = 512;
const MAGIC: &[u8; 8] = b"swyvec01";
/// Records of passages that are gone, beside those in use, before the file is written anew.
const SPARE: usize = 10_000;

/// One vector: bytes, and what they are to be multiplied with.
struct Code {
    scale: f32,
    bytes: Vec<i8>,
}

impl Code {
    /// Of length 1, and rounded. What has no direction is near to nothing.
    fn of(vector: &[f32]) -> Self {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        if !length.is_normal() {
            return Self { scale: f32::MIN_POSITIVE, bytes: vec![0; vector.len()] };
        }
        let bytes = vector.iter().map(|x| (x / largest * 127.0).round() as i8).collect();
        Self { scale: largest / 127.0 / length, bytes }
    }
}

#[derive(Default)]
struct Block {
    keys: Vec<u64>,
    scales: Vec<f32>,
    bytes: Vec<i8>,
}

/// The vectors of one model.
#[derive(Default)]
pub(super) struct Vectors {
    dimensions: usize,
    blocks: Vec<Block>,
    known: HashSet<u64>,
}

impl Vectors {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether that passage's is there.
    pub(super) fn has(&self, key: u64) -> bool {
        self.known.contains(&key)
    }

    /// Whether one of that many dimensions fits to the rest.
    pub(super) fn takes(&self, dimensions: usize) -> bool {
        let same = self.known.is_empty() || self.dimensions == dimensions;
        same && (1..=MAX_DIMENSIONS).contains(&dimensions)
    }

    /// How many more there may be; before the first has said how many dimensions there are, at least a few.
    pub(super) fn room(&self) -> usize {
        if self.known.is_empty() {
            MAX_BYTES / MAX_DIMENSIONS
        } else {
            (MAX_BYTES / self.dimensions).saturating_sub(self.len())
        }
    }

    /// Adds one; `false` when it doesn't fit to the rest, or there is no room.
    pub(super) fn add(&mut self, key: u64, vector: &[f32]) -> bool {
        self.takes(vector.len()) && self.add_code(key, &Code::of(vector))
    }

    fn add_code(&mut self, key: u64, code: &Code) -> bool {
        if self.known.is_empty() {
            (self.dimensions, self.blocks) = (code.bytes.len(), Vec::new());
        }
        if self.known.contains(&key) {
            return true;
        }
        if code.bytes.len() != self.dimensions || self.room() == 0 {
            return false;
        }
        self.known.insert(key);
        if self.blocks.last().is_none_or(|block| block.keys.len() == BLOCK) {
            self.blocks.push(Block::default());
        }
        let Some(block) = self.blocks.last_mut() else { return false };
        block.keys.push(key);
        block.scales.push(code.scale);
        block.bytes.reserve_exact(if block.bytes.is_empty() { BLOCK * self.dimensions } else { 0 });
        block.bytes.extend_from_slice(&code.bytes);
        true
    }

    /// Keeps only those that are `live`.
    pub(super) fn retain(&mut self, live: impl Fn(u64) -> bool) {
        if self.known.iter().all(|key| live(*key)) {
            return;
        }
        let old = std::mem::take(self);
        for block in old.blocks {
            for (at, key) in block.keys.iter().enumerate().filter(|(_, key)| live(**key)) {
                let bytes = &block.bytes[at * old.dimensions..(at + 1) * old.dimensions];
                self.add_code(*key, &Code { scale: block.scales[at], bytes: bytes.to_vec() });
            }
        }
    }

    /// The `most` nearest by cosine, of at least `least`, nearest first. Exact but for the rounding: every vector is
    /// compared.
    pub(super) fn nearest(&self, question: &[f32], most: usize, least: f32) -> Vec<(f32, u64)> {
        let question = Code::of(question);
        if question.bytes.len() != self.dimensions {
            return Vec::new();
        }
        let mut best = BinaryHeap::with_capacity(most + 1);
        for block in &self.blocks {
            let vectors = block.bytes.chunks_exact(self.dimensions);
            for ((bytes, scale), key) in vectors.zip(&block.scales).zip(&block.keys) {
                let cosine = dot(&question.bytes, bytes) as f32 * question.scale * scale;
                if cosine >= least {
                    best.push(Reverse(Near(cosine, *key)));
                    if best.len() > most {
                        best.pop();
                    }
                }
            }
        }
        best.into_sorted_vec().into_iter().map(|Reverse(Near(cosine, key))| (cosine, key)).collect()
    }
}

/// A loop that compilers make into vector instructions; no overflow below 130,000 dimensions.
fn dot(one: &[i8], other: &[i8]) -> i32 {
    one.iter().zip(other).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

/// Ordered by cosine, then by key so that ties are the same every time.
#[derive(PartialEq)]
struct Near(f32, u64);

impl Eq for Near {}

impl Ord for Near {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The file: a head that names the model and the dimensions, then for each vector its key, scale and bytes. It is
/// only ever added to; what a crash left half written at its end is cut off.
pub(super) struct Cache {
    path: PathBuf,
    model: String,
    file: Option<BufWriter<File>>,
    records: usize,
}

impl Cache {
    /// Reads what there is of that model. Anything else there is written over.
    pub(super) fn open(folder: &Path, model: &str) -> (Self, Vectors) {
        let path = folder.join("vectors");
        let (model, file) = (model.to_owned(), None);
        let mut cache = Self { path, model, file, records: 0 };
        let vectors = cache.read().unwrap_or_default();
        if cache.records == 0 {
            cache.file = None;
        }
        (cache, vectors)
    }

    fn read(&mut self) -> io::Result<Vectors> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        let mut reader = BufReader::new(&file);
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = vec![0; self.head(0).len()];
        reader.read_exact(&mut head)?;
        let (rest, dimensions) = head.split_at(head.len() - 4);
        let dimensions: [u8; 4] = dimensions.try_into().map_err(|_| damaged())?;
        let dimensions = u32::from_le_bytes(dimensions) as usize;
        if rest != &self.head(0)[..rest.len()] || !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(damaged());
        }
        let mut vectors = Vectors::default();
        let mut record = vec![0; 12 + dimensions];
        while reader.read_exact(&mut record).is_ok() {
            let key = u64::from_le_bytes(std::array::from_fn(|at| record[at]));
            let scale = f32::from_le_bytes(std::array::from_fn(|at| record[8 + at]));
            if !scale.is_normal() {
                break;
            }
            let bytes = record[12..].iter().map(|byte| byte.cast_signed()).collect();
            vectors.add_code(key, &Code { scale, bytes });
            self.records += 1;
        }
        file.set_len((head.len() + self.records * record.len()) as u64)?;
        drop(reader);
        let file = File::options().append(true).open(&self.path)?;
        self.file = Some(BufWriter::new(file));
        Ok(vectors)
    }

    fn head(&self, dimensions: usize) -> Vec<u8> {
        let name = self.model.as_bytes();
        let lengths = [name.len() as u32, dimensions as u32].map(u32::to_le_bytes);
        [MAGIC, &lengths[0][..], name, &lengths[1][..]].concat()
    }

    /// Adds vectors that are in `vectors` by now.
    ///
    /// # Errors
    /// When the disk is full, for example: then they are embedded again after a restart.
    pub(super) fn add(&mut self, vectors: &Vectors, new: &[(u64, Vec<f32>)]) -> io::Result<()> {
        if self.file.is_none() || self.records > 2 * vectors.len() + SPARE {
            return self.write_all(vectors);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        for (key, vector) in new {
            let code = Code::of(vector);
            write(file, *key, code.scale, &code.bytes)?;
            self.records += 1;
        }
        file.flush()
    }

    fn write_all(&mut self, vectors: &Vectors) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = BufWriter::new(File::create(&new)?);
        file.write_all(&self.head(vectors.dimensions))?;
        for block in &vectors.blocks {
            let all = block.bytes.chunks_exact(vectors.dimensions);
            for ((bytes, scale), key) in all.zip(&block.scales).zip(&block.keys) {
                write(&mut file, *key, *scale, bytes)?;
            }
        }
        file.flush()?;
        fs::rename(new, &self.path)?;
        (self.file, self.records) = (Some(file), vectors.len());
        Ok(())
    }
}

fn write(file: &mut impl Write, key: u64, scale: f32, bytes: &[i8]) -> io::Result<()> {
    file.write_all(&key.to_le_bytes())?;
    file.write_all(&scale.to_le_bytes())?;
    let bytes: Vec<u8> = bytes.iter().map(|byte| byte.cast_unsigned()).collect();
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u64, dimensions: usize) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..dimensions).map(|_| random.f32() - 0.5).collect()
    }

    fn cosine(one: &[f32], other: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
    }

    #[test]
    fn the_nearest_are_those_of_the_exact_cosine() {
        let mut vectors = Vectors::default();
        for key in 0..2000 {
            assert!(vectors.add(key, &random(key, 64)));
        }
        let question = random(9999, 64);
        let mut exact: Vec<_> = (0..2000).map(|k| (cosine(&question, &random(k, 64)), k)).collect();
        exact.sort_by(|one, other| other.0.total_cmp(&one.0));
        let found = vectors.nearest(&question, 10, -1.0);
        assert!(found.is_sorted_by(|one, other| one.0 >= other.0));
        let expected: HashSet<_> = exact[..10].iter().map(|(_, key)| *key).collect();
        let same = found.iter().filter(|(_, key)| expected.contains(key)).count();
        assert!(same >= 9, "{found:?} is not {:?}", &exact[..10]);
        for (near, key) in found {
            assert!((near - cosine(&question, &random(key, 64))).abs() < 0.01);
        }
        assert_eq!(vectors.nearest(&random(5, 64), 1, 0.9)[0].1, 5);
        assert!(vectors.nearest(&question, 10, 0.9).is_empty());
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let mut vectors = Vectors::default();
        assert!(vectors.add(1, &[1.0, 0.0]));
        assert!(!vectors.add(2, &[1.0, 0.0, 0.0]));
        assert!(vectors.add(2, &[0.0, 0.0]) && vectors.add(3, &[f32::MAX, f32::MAX]));
        let found = vectors.nearest(&[1.0, 0.0], 3, -1.0);
        assert!(found[0].0 > 0.99 && found[1].0.abs() < 0.01 && found[2].0.abs() < 0.01);
        assert!(vectors.nearest(&[1.0, 0.0, 0.0], 1, 0.0).is_empty());
        let large = vec![1.0; MAX_DIMENSIONS];
        let mut vectors = Vectors::default();
        let room = vectors.room() as u64;
        assert!((0..room).all(|key| vectors.add(key, &large)));
        assert!(!vectors.add(room, &large));
    }

    #[test]
    fn those_of_passages_that_are_gone_go() {
        let mut vectors = Vectors::default();
        (0..1000).for_each(|key| assert!(vectors.add(key, &random(key, 8))));
        vectors.retain(|key| key < 1000);
        assert_eq!(vectors.len(), 1000);
        vectors.retain(|key| (500..600).contains(&key));
        assert_eq!(vectors.len(), 100);
        assert_eq!(vectors.nearest(&random(550, 8), 1, 0.9)[0].1, 550);
    }

    #[test]
    fn the_file_gives_back_what_was_added_even_when_its_end_is_torn() {
        let place = tempfile::tempdir().unwrap();
        let (mut cache, mut vectors) = Cache::open(place.path(), "m");
        assert_eq!(vectors.len(), 0);
        for keys in [0..10, 10..20] {
            let new: Vec<_> = keys.map(|key| (key, random(key, 8))).collect();
            new.iter().for_each(|(key, vector)| assert!(vectors.add(*key, vector)));
            cache.add(&vectors, &new).unwrap();
        }
        drop(cache);
        let path = place.path().join("vectors");
        let whole = fs::metadata(&path).unwrap().len();
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(&[7; 11]).unwrap();
        let (mut cache, mut vectors) = Cache::open(place.path(), "m");
        assert_eq!((vectors.len(), fs::metadata(&path).unwrap().len()), (20, whole));
        assert_eq!(vectors.nearest(&random(15, 8), 1, 0.9)[0].1, 15);
        assert!(vectors.add(20, &random(20, 8)));
        cache.add(&vectors, &[(20, random(20, 8))]).unwrap();
        drop(cache);
        assert_eq!(Cache::open(place.path(), "m").1.len(), 21);
        assert_eq!(Cache::open(place.path(), "other").1.len(), 0);
    }

    #[test]
    fn the_file_does_not_grow_with_what_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let (mut cache, mut vectors) = Cache::open(place.path(), "m");
        for round in 0..30 {
            let new: Vec<_> = (0..1000).map(|key| (round * 1000 + key, vec![1.0, 2.0])).collect();
            new.iter().for_each(|(key, vector)| assert!(vectors.add(*key, vector)));
            vectors.retain(|key| key >= round * 1000);
            cache.add(&vectors, &new).unwrap();
        }
        let records = fs::metadata(place.path().join("vectors")).unwrap().len() / 14;
        assert!(records < 14_000, "{records}");
    }
}
