//! `POST /reload`: asks whoever owns the settings to read them again, and tells what came of it.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::Objection;
use crate::settings::reload::Change;

/// Where reloads are asked for. One at a time is done; a few wait.
pub type Reloads = mpsc::Sender<ReloadRequest>;

/// A reload that somebody has asked for, and where the outcome is told: why it was refused, where it was.
pub type ReloadRequest = oneshot::Sender<Result<ReloadAnswer, String>>;

/// What a reload changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// The file that the edge has read, as it was told to at its start.
    pub file: String,
    /// All in which the settings differ from those before, up to [`MOST_TOLD`].
    pub changes: Vec<Change>,
    /// How many more there are.
    pub more: usize,
    /// What in the file is no fault, and hardly meant.
    pub warnings: Vec<String>,
}

/// Changes that are told of one reload.
pub const MOST_TOLD: usize = 1000;

/// Asks, and waits for the answer. Dropped, the reload goes on.
pub(super) async fn reload(reloads: &Reloads) -> Result<serde_json::Value, Objection> {
    let stopping = || (StatusCode::SERVICE_UNAVAILABLE, "the edge stops".to_owned());
    let (tell, told) = oneshot::channel();
    reloads.send(tell).await.map_err(|_| stopping())?;
    match told.await {
        Ok(Ok(answer)) => Ok(serde_json::json!(answer)),
        Ok(Err(why)) => Err((StatusCode::UNPROCESSABLE_ENTITY, why)),
        Err(_) => Err(stopping()),
    }
}
