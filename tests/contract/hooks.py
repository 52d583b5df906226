"""What no schema can say: which values there are just now. Cases of the right form get such values here, so that they reach
what lies behind the checks of form; cases of the wrong form go out as they were made.
"""

from itertools import count
from os import environ

import requests
import schemathesis
from schemathesis.generation.meta import TestPhase

SHOP = environ["CONTRACT_SHOP"]
ACCOUNT = {"email": environ["CONTRACT_EMAIL"], "password": environ["CONTRACT_PASSWORD"]}

CATEGORIES = [category["slug"] for category in requests.get(f"{SHOP}/api/categories").json()["categories"]]
LISTED = requests.get(f"{SHOP}/api/products", params={"limit": 100, "sort": "price_asc"}).json()["products"]
# One order, one currency.
PRODUCTS = [product["id"] for product in LISTED if product["currency"] == "EUR"]

WORDS = ["lamp", "Enamel kettle", "handle -red", "ke", "Gr\u00f6\u00dfe"]

calls = count()


@schemathesis.hook
def before_call(context, case, kwargs):
    call = next(calls)
    # Attempts to register and to sign in are counted for each client; every call comes from another.
    case.headers["X-Forwarded-For"] = f"10.{call >> 16 & 255}.{call >> 8 & 255}.{call & 255}"
    operation = case.operation.definition.raw["operationId"]
    if operation == "sign_out":
        # Not the session that all other cases need.
        case.cookies["__Host-session"] = environ["CONTRACT_OTHER_SESSION"]
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for name in {"search", "words"} & set(case.query or {}):
        # A word to find, which no pattern of a few characters can tell from one that is only to be left out.
        case.query[name] = WORDS[call % len(WORDS)]
    if "cursor" in (case.query or {}):
        continue_a_list(case)
    if "Idempotency-Key" in case.headers:
        # New for each request, as the parameter's description says.
        case.headers["Idempotency-Key"] = f"contract-{call}"
    if "If-Match" in case.headers:
        # The version that is there to be read, if there is one.
        read = requests.get(f"{SHOP}{case.formatted_path}")
        case.headers["If-Match"] = read.headers.get("ETag", case.headers["If-Match"])
    if isinstance(case.body, dict):
        if case.body.get("image") is not None:
            # Of those of the right form, one that is there.
            case.body["image"] = "kettle-1"
        if case.body.get("category") is not None:
            case.body["category"] = CATEGORIES[call % len(CATEGORIES)]
        if operation == "create_product" and case.meta.phase.name == TestPhase.STATEFUL:
            # What is not offered yet is hidden from readers, and would be taken for lost.
            case.body["active"] = True
        if operation == "place_order":
            choose_products(case.body["lines"], call)
        if operation in ("change_password", "delete_account"):
            # An account of its own for each: what it does to the session and the account is for good.
            case.cookies["__Host-session"] = newcomer(call)
            case.body["current" if operation == "change_password" else "password"] = ACCOUNT["password"]
        if operation == "correct_stock":
            # What the shop believes in, if there is such a product.
            kept = requests.get(f"{SHOP}{case.formatted_path}".removesuffix("/stock"), cookies=case.cookies)
            case.body["was"] = kept.json()["stock"] if kept.ok else case.body["was"]
        if operation == "sign_in" and call % 2:
            case.body.update(ACCOUNT)


def newcomer(call):
    """The session of a customer who has just registered."""
    account = {**ACCOUNT, "email": f"contract-{call}@example.org"}
    fields = {"X-Forwarded-For": f"11.{call >> 16 & 255}.{call >> 8 & 255}.{call & 255}"}
    registered = requests.post(f"{SHOP}/api/users", json=account, headers=fields)
    # The cookie is for TLS alone, and no jar of this library takes it from elsewhere.
    return registered.headers["Set-Cookie"].split(";")[0].partition("=")[2]


def continue_a_list(case):
    """A cursor is what the page before gave out, for the same list: without one there is no cursor to send."""
    query = {name: value for name, value in case.query.items() if name != "cursor"}
    page = requests.get(f"{SHOP}{case.formatted_path}", params={**query, "limit": 1}, cookies=case.cookies)
    del case.query["cursor"]
    if page.ok and page.json()["next_cursor"]:
        case.query["cursor"] = page.json()["next_cursor"]


def choose_products(lines, call):
    """Products that there are, each once and in one currency, which JSON Schema cannot say."""
    for index, line in enumerate(lines):
        line["product_id"] = PRODUCTS[(call + index) % len(PRODUCTS)]
