//! Trained models: files in the data directory, an index of them in the store, and which is active for which node.
//!
//! A file is written whole under a working name and renamed, and carries a checksum; one that is damaged or foreign is
//! refused when it is read, its detector abstains, and the status says so.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_detect::ensemble::{EnsembleDetector, Models};
use evenkeel_detect::model::{MAX_BYTES, Model, ModelError, ModelKind};
use evenkeel_runtime::files;
use serde::{Deserialize, Serialize};

use crate::store::records::{ModelKey, ModelRecord};
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Trainings kept of one node: the active one, those to go back to, and their files.
const KEPT: usize = 12;

/// Why models can not be kept, found or used.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error("the model file {} can not be used: {source}; see that the disk has room and the file is readable", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was to be written could not be read again.
    #[error("the trained model can not be kept: {0}")]
    Encode(ModelError),
    /// There is none of this id.
    #[error("there is no model {0}: see `evenkeelctl model list`")]
    Unknown(String),
    /// It is damaged, so that activating it would silence detectors.
    #[error("model {id} can not be activated: {problem}")]
    Unusable {
        /// Its id.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// There is nothing to go back to.
    #[error("no earlier model was active here; choose one with `evenkeelctl model activate ID`")]
    NothingBefore,
}

/// Which training is active, and which was before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// Its number; `None` = none.
    pub number: Option<u32>,
    /// The one before.
    pub before: Option<u32>,
}

/// The models of all clusters.
#[derive(Clone)]
pub struct Shelf {
    dir: PathBuf,
    store: Arc<dyn Store>,
}

impl Shelf {
    /// A shelf in `dir`, which is created when something is put there.
    #[must_use]
    pub fn new(dir: PathBuf, store: Arc<dyn Store>) -> Self {
        Self { dir, store }
    }

    /// How a model is named.
    #[must_use]
    pub fn id(cluster: &ClusterId, number: u32) -> String {
        format!("{cluster}-m{number}")
    }

    /// Cluster and number of a name.
    #[must_use]
    pub fn parse(id: &str) -> Option<(ClusterId, u32)> {
        let (cluster, number) = id.rsplit_once("-m")?;
        Some((ClusterId::new(cluster).ok()?, number.parse().ok().filter(|n| *n > 0)?))
    }

    /// All trainings of a cluster, newest first.
    ///
    /// # Errors
    /// Of the store.
    pub fn list(&self, cluster: &ClusterId) -> Result<Vec<(u32, ModelRecord)>, StoreError> {
        let mut found = Vec::new();
        let range = KeyRange::under(cluster);
        trees::MODELS.scan(
            self.store.as_ref(),
            &range,
            Direction::Backward,
            OnDamage::Skip,
            |key: ModelKey, record| {
                found.push((key.number, record));
                ControlFlow::Continue(())
            },
        )?;
        Ok(found)
    }

    /// Keeps what a training made: files first, then the row that names them. Old trainings of the same node go.
    ///
    /// # Errors
    /// [`ModelsError::File`], [`ModelsError::Encode`], or of the store.
    pub fn keep(
        &self,
        cluster: &ClusterId,
        mut record: ModelRecord,
        models: &Models,
    ) -> Result<u32, ModelsError> {
        let known = self.list(cluster)?;
        let number = known.first().map_or(1, |(newest, _)| newest.saturating_add(1));
        files::private_dir(&self.dir).map_err(|error| self.failed(&self.dir, io::Error::other(error)))?;
        record.bytes = 0;
        for model in models.all() {
            let bytes = model.encode().map_err(ModelsError::Encode)?;
            record.bytes += bytes.len() as u64;
            let path = self.path(cluster, number, model.kind());
            files::write_atomic(&path, &bytes, 0o600)
                .map_err(|error| self.failed(&path, io::Error::other(error)))?;
        }
        let mut batch = Batch::new();
        batch.put(&trees::MODELS, &ModelKey { cluster: cluster.clone(), number }, &record)?;
        let active = self.active(cluster, record.node.as_ref())?;
        let same = known.iter().filter(|(_, old)| old.node == record.node).map(|(old, _)| *old);
        let in_use = |old: &u32| Some(*old) == active.number || Some(*old) == active.before;
        let old: Vec<u32> = same.skip(KEPT - 1).filter(|old| !in_use(old)).collect();
        for &number in &old {
            batch.delete(&trees::MODELS, &ModelKey { cluster: cluster.clone(), number });
        }
        self.store.apply(batch)?;
        self.store.flush()?;
        for (number, kind) in old.iter().flat_map(|n| ModelKind::ALL.map(|kind| (*n, kind))) {
            // A file left behind takes room and does no harm.
            let _ = fs::remove_file(self.path(cluster, number, kind));
        }
        Ok(number)
    }

    /// Which training is active for a node (`None`: for every node without its own).
    ///
    /// # Errors
    /// Of the store.
    pub fn active(&self, cluster: &ClusterId, node: Option<&NodeId>) -> Result<Active, StoreError> {
        let stored = trees::CONTROL.get(self.store.as_ref(), &active_key(cluster, node))?;
        Ok(stored.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default())
    }

    /// The training that a node uses: its own, or that of its cluster.
    ///
    /// # Errors
    /// Of the store.
    pub fn in_use(&self, cluster: &ClusterId, node: &NodeId) -> Result<Option<u32>, StoreError> {
        let own = self.active(cluster, Some(node))?.number;
        if own.is_some() { Ok(own) } else { Ok(self.active(cluster, None)?.number) }
    }

    /// Makes a training active. Its files are read first: a damaged one is refused.
    ///
    /// # Errors
    /// [`ModelsError::Unknown`], [`ModelsError::Unusable`], or of the store.
    pub fn activate(&self, cluster: &ClusterId, number: u32) -> Result<(ModelRecord, Active), ModelsError> {
        let id = || Self::id(cluster, number);
        let key = ModelKey { cluster: cluster.clone(), number };
        let record =
            trees::MODELS.get(self.store.as_ref(), &key)?.ok_or_else(|| ModelsError::Unknown(id()))?;
        let problems = self.problems(cluster, number);
        if let Some(problem) = problems.into_iter().next() {
            return Err(ModelsError::Unusable { id: id(), problem });
        }
        let mut active = self.active(cluster, record.node.as_ref())?;
        if active.number != Some(number) {
            active = Active { number: Some(number), before: active.number };
        }
        self.set_active(cluster, record.node.as_ref(), active)?;
        Ok((record, active))
    }

    /// Goes back to the training that was active before, of a node or of the whole cluster.
    ///
    /// # Errors
    /// [`ModelsError::NothingBefore`], otherwise as [`Self::activate`].
    pub fn roll_back(
        &self,
        cluster: &ClusterId,
        node: Option<&NodeId>,
    ) -> Result<(u32, ModelRecord), ModelsError> {
        let before = self.active(cluster, node)?.before.ok_or(ModelsError::NothingBefore)?;
        self.activate(cluster, before).map(|(record, _)| (before, record))
    }

    fn set_active(
        &self,
        cluster: &ClusterId,
        node: Option<&NodeId>,
        active: Active,
    ) -> Result<(), StoreError> {
        let value = serde_json::to_value(active)
            .map_err(|source| StoreError::Encode { tree: trees::CONTROL.id().name, source })?;
        let mut batch = Batch::new();
        batch.put(&trees::CONTROL, &active_key(cluster, node), &value)?;
        self.store.apply(batch)?;
        self.store.flush()
    }

    /// Gives a detector the models of a training. What can not be used is refused, so that its detector abstains, and
    /// told in words.
    pub fn give(&self, cluster: &ClusterId, number: u32, to: &mut EnsembleDetector) -> Vec<String> {
        let mut problems = Vec::new();
        for kind in ModelKind::ALL {
            let outcome = match self.read(cluster, number, kind) {
                Ok(model) => to.set_model(kind, model),
                Err(Refused { error, words }) => {
                    problems.push(format!("model {} of {kind}: {words}", Self::id(cluster, number)));
                    to.refuse(kind, error);
                    continue;
                }
            };
            if let Err(error) = outcome {
                problems.push(format!("model {} of {kind}: {error}", Self::id(cluster, number)));
            }
        }
        problems
    }

    /// What is wrong with the files of a training.
    #[must_use]
    pub fn problems(&self, cluster: &ClusterId, number: u32) -> Vec<String> {
        let broken = ModelKind::ALL
            .into_iter()
            .filter_map(|kind| self.read(cluster, number, kind).err().map(|r| (kind, r)));
        broken.map(|(kind, refused)| format!("{kind}: {}", refused.words)).collect()
    }

    /// One model of a training, if it can be used.
    #[must_use]
    pub fn model(&self, cluster: &ClusterId, number: u32, kind: ModelKind) -> Option<Model> {
        self.read(cluster, number, kind).ok()
    }

    fn read(&self, cluster: &ClusterId, number: u32, kind: ModelKind) -> Result<Model, Refused> {
        let path = self.path(cluster, number, kind);
        let whole = fs::metadata(&path).and_then(|about| {
            if about.len() > MAX_BYTES as u64 {
                Err(io::Error::other("it is too large"))
            } else {
                fs::read(&path)
            }
        });
        let bytes = whole.map_err(|error| Refused {
            error: ModelError::NotAModel,
            words: format!("{} can not be read: {error}", path.display()),
        })?;
        Model::decode(&bytes, kind).map_err(|error| Refused { error, words: error.to_string() })
    }

    fn path(&self, cluster: &ClusterId, number: u32, kind: ModelKind) -> PathBuf {
        self.dir.join(format!("{}-{kind}.ekmodel", Self::id(cluster, number)))
    }

    fn failed(&self, path: &Path, source: io::Error) -> ModelsError {
        ModelsError::File { path: path.to_owned(), source }
    }
}

/// A file that is not used.
struct Refused {
    error: ModelError,
    words: String,
}

fn active_key(cluster: &ClusterId, node: Option<&NodeId>) -> String {
    format!("model/{cluster}/{}", node.map_or("*", NodeId::as_str))
}
