"""The OpenAI Chat Completions API: requests as conversations, what the model writes as answers."""

from warmline_http.openai._routes import router

__all__ = ["router"]
