//! The description of the interface, made from the handlers that are the interface. The copy beside the manifest is what reviewers
//! see change; a test holds it to this one.

use axum::response::Response;
use http::HeaderMap;
use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::{
    caching::{self, CATALOGUE, EntityTag, Keeping, Tag},
    problem::{Members, Problem},
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Gatehouse shop", description = "Errors are problem+json (RFC 9457). Writes that bring the session cookie need the header `X-Requested-With`."),
    components(schemas(Members<'_>))
)]
struct Frame;

/// What the routes are added to.
pub(crate) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// The finished description: every operation may also answer with a problem.
pub(crate) fn finish(document: &utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).expect("the description is JSON");
    let problem = json!({
        "description": "A refusal or an error",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } }
    });
    let operations = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in operations.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut()) {
        operation["responses"]["default"] = problem.clone();
    }
    document
}

/// As it is written down.
pub(crate) fn text(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("JSON is JSON");
    text.push('\n');
    text
}

/// `GET /api/openapi.json`.
pub(crate) fn show(document: &Value, headers: &HeaderMap) -> Result<Response, Problem> {
    let entity = EntityTag::of(&["openapi", &document.to_string()]);
    caching::json(headers, &Keeping { control: CATALOGUE, entity, tags: &[Tag::Storefront] }, document)
}
