//! The description of the interface, made from the handlers that are the interface. The copy beside the manifest is what reviewers
//! see change; a test holds it to this one.

use axum::response::Response;
use http::HeaderMap;
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, SecurityScheme},
};

use crate::{
    caching::{self, CATALOGUE, EntityTag, Keeping, Tag},
    cookies, cross_site,
    problem::{Members, Problem},
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Gatehouse shop", description = "Errors are problem+json (RFC 9457). Writes that bring the session cookie need the header `X-Requested-With`. What is in no catalogue (404, or 422 in a body), or was changed by somebody else meanwhile (409, 412), is refused though it has the right form; so is a `cursor` that no page has given out (400)."),
    components(schemas(Members<'_>)),
    modifiers(&Security)
)]
struct Frame;

/// What the handlers' `security` names.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let session =
            ApiKeyValue::with_description(cookies::SESSION, "Set by signing in and by registering.");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
        let why = "Any value: what a form of another site cannot send, beside the cookie of a write.";
        let requested_with = ApiKeyValue::with_description(cross_site::REQUESTED_WITH.as_str(), why);
        components
            .add_security_scheme("requested_with", SecurityScheme::ApiKey(ApiKey::Header(requested_with)));
    }
}

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

/// As `origin/openapi.json` has it.
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
