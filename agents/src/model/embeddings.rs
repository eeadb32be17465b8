//! Embeddings by the same servers and policy: OpenAI's `/embeddings`.

use axum::http::HeaderMap;
use serde::Deserialize;
use tokio::time::timeout;

use super::{Asked, Model, ModelError, Usage};

#[derive(Deserialize)]
struct Reply {
    data: Vec<Row>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Row {
    index: usize,
    embedding: Vec<f32>,
}

impl Model {
    /// A vector for each text, in their order, all of one length. `headers` go along. Dropping the future closes the
    /// connection.
    ///
    /// # Errors
    /// When there is none for each.
    pub async fn embed(
        &self,
        texts: &[String],
        headers: &HeaderMap,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let after = self.total_timeout;
        let read = async {
            let opened = self.open(Asked::Embeddings(texts), headers).await?;
            Ok((self.read_body(opened.response).await?, opened.retries))
        };
        let read = timeout(after, read).await;
        let (page, retries) = read.unwrap_or(Err(ModelError::Timeout { clock: "total", after }))?;
        let reply: Reply = serde_json::from_slice(&page).map_err(|_| ModelError::Nonsense)?;
        let usage = reply.usage.unwrap_or_default();
        self.metrics.model_call(retries, usage.prompt_tokens, 0);
        in_order(reply.data, texts.len()).ok_or(ModelError::Nonsense)
    }
}

fn in_order(mut rows: Vec<Row>, texts: usize) -> Option<Vec<Vec<f32>>> {
    rows.sort_by_key(|row| row.index);
    let each_once = rows.len() == texts && rows.iter().enumerate().all(|(at, row)| row.index == at);
    let length = rows.first().map_or(0, |row| row.embedding.len());
    let sound = |row: &Row| {
        row.embedding.len() == length && row.embedding.iter().all(|number| number.is_finite())
    };
    let good = each_once && (texts == 0 || length > 0) && rows.iter().all(sound);
    good.then(|| rows.into_iter().map(|row| row.embedding).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_go_by_their_index_and_none_may_be_missing() {
        let rows = |all: &[(usize, &[f32])]| -> Vec<Row> {
            all.iter().map(|(index, v)| Row { index: *index, embedding: v.to_vec() }).collect()
        };
        let two = in_order(rows(&[(1, &[2.0]), (0, &[1.0])]), 2);
        assert_eq!(two, Some(vec![vec![1.0], vec![2.0]]));
        for wrong in [
            rows(&[(0, &[1.0])]),
            rows(&[(0, &[1.0]), (0, &[1.0])]),
            rows(&[(0, &[1.0]), (1, &[1.0, 2.0])]),
            rows(&[(0, &[]), (1, &[])]),
            rows(&[(0, &[f32::NAN]), (1, &[1.0])]),
        ] {
            assert_eq!(in_order(wrong, 2), None);
        }
    }
}
