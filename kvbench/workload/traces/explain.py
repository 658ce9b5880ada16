"""pydantic's account of one malformed piece of JSON, as one sentence for a user."""

from pydantic import ValidationError


def explain_json(error: ValidationError) -> str:
    """The first problem: the key, what was wrong with it, and (shortened) what was found."""
    detail = error.errors(include_url=False, include_context=False)[0]
    message = detail["msg"].replace("Input should", "should").replace(" at line 1 column", " at column")
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "json_invalid":
        return message[0].lower() + message[1:]
    if detail["type"] == "missing":
        return f"{where} is missing"
    if detail["type"] == "model_type":
        message = "should be an object"
    shown = repr(detail["input"])
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return f"{where or 'the line'} {message}, not {shown}"
