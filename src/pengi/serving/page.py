"""The page: play a recording, ask questions about it, see its timeline, try custom labels, search an index.

It is a Gradio app mounted into the server's FastAPI app. It calls a :class:`PageModel`, such as a loaded ``Pengi`` or
the server's inference worker, and a collection's ``search``. It loads nothing from other hosts. Recordings of visitors
are kept for a while in a store (``upload_store``), and only the routes that the page needs are reachable
(``page_guard``).
"""

from __future__ import annotations

import os

# Set before Gradio is imported, which would otherwise send usage statistics.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import resources
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from pengi.errors import InputError
from pengi.serving import page_views as views
from pengi.serving import replies
from pengi.serving.page_actions import RECORDINGS, WINDOWS_S, Actions, Components, PageModel
from pengi.serving.page_guard import PageGuard
from pengi.serving.upload_store import StoreLimits, UploadStore

if TYPE_CHECKING:
    from pengi.retrieval import Collection

PAGE_ASSETS = Path(str(resources.files("pengi"))) / "assets/page"
ICON = '<link rel="icon" href="favicon.ico">'
"""A relative link. By default browsers look at the root of the host, where the page may not be."""
SUGGESTIONS = ("What do you hear?", "Is someone speaking?", "What animal is it?", "What instrument is playing?")
MAX_CONCURRENT = 8
"""Number of actions that run at a time; the inference worker has its own queue."""
MAX_QUEUED = 64
CACHE_CLEANUP_S = (300, 600)
"""How often, and from which age on, Gradio deletes uploads, in seconds; uploads in use are in the store by then."""
FONTS = ["-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "Liberation Sans", "sans-serif"]
_html = partial(gr.HTML, apply_default_css=False)
OPEN_HIT_JS = """element.addEventListener("click", (event) => {
  const row = event.target.closest("[data-hit]");
  if (row) trigger("click", {index: Number(row.dataset.hit)});
});"""


def mount(
    app: FastAPI,
    model: PageModel,
    collection: Collection | None = None,
    *,
    limits: StoreLimits | None = None,
) -> FastAPI:
    """Put the page at ``/`` of a server, after all routes that the app already has.

    A browser with an open page holds a connection, and a server that shuts down would wait for it.
    ``app.state.end_page()``, called in the server's event loop, ends these connections.

    Args:
        app: the server.
        model: answers about recordings; ``embed`` is called only with a collection.
        collection: an opened :class:`pengi.retrieval.Collection`, or None for a page without search.
        limits: limits for the visitors of the page.
    """
    store = UploadStore(limits)
    app.add_api_route(RECORDINGS + "/{token}", _playable(store), methods=["GET", "HEAD"], include_in_schema=False)
    with _uploads_in(store.uploads):
        gr.mount_gradio_app(
            app,
            build(model, collection, store),
            path="/",
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=store.limits.upload_bytes,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=_theme(),
            css=(PAGE_ASSETS / "page.css").read_text(encoding="utf-8"),
            head=f"{ICON}<script>{(PAGE_ASSETS / 'page.js').read_text(encoding='utf-8')}</script>",
        )
    gradio_app = app.router.routes.pop().app  # type: ignore[attr-defined]
    replies.install(gradio_app)
    gradio_app.add_middleware(PageGuard, store=store, actions=gradio_app.get_blocks().fns)
    # Gradio mounts its app as a route that matches everything; a wrong method would be reported as an unknown address.
    app.router.default = gradio_app
    app.state.end_page = gradio_app.stop_event.set
    return app


def _playable(store: UploadStore) -> Callable[[str], FileResponse]:
    """The route that plays recordings."""

    def recording(token: str) -> FileResponse:
        try:
            kept = store.get(token)
        except InputError as error:
            raise HTTPException(404, str(error)) from error
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-store"}
        return FileResponse(kept.playable, media_type=kept.media_type, headers=headers)

    return recording


def build(model: PageModel, collection: Collection | None, store: UploadStore) -> gr.Blocks:
    """The page as a Gradio app, without its style and the route that plays recordings; see :func:`mount`."""
    blocks: gr.Blocks
    with gr.Blocks(title="Pengi", analytics_enabled=False, delete_cache=CACHE_CLEANUP_S) as blocks:
        _html(views.header(PurePath(model.name).name or model.name))
        pieces: dict[str, Any] = {"turns": gr.State([]), "found": gr.State([])}
        pieces["token"] = gr.State(None, delete_callback=store.discard)
        with gr.Tabs(elem_id="pg-tabs", elem_classes=["pg-single"] if collection is None else []) as pieces["tabs"]:
            with gr.Tab("Recording", id="recording"):
                pieces |= _recording_tab(model)
            with gr.Tab("Search", id="search", visible=collection is not None):
                pieces |= _search_tab()
        pieces["notice"] = _html("", elem_id="pg-notice")
        parts = Components(**pieces)
        _wire(Actions(model, collection, store, parts), parts)
    blocks.queue(max_size=MAX_QUEUED, default_concurrency_limit=MAX_CONCURRENT, api_open=False)
    return blocks


def _recording_tab(model: PageModel) -> dict[str, Any]:
    """The upload, and the results for the open recording."""
    pieces: dict[str, Any] = {}
    pieces["upload"] = gr.Audio(
        label="Recording: drop a file here, choose one, or record",
        sources=["upload", "microphone"],
        type="filepath",
        editable=False,
        buttons=[],
        elem_id="pg-upload",
    )
    with gr.Row(elem_classes="pg-chips"):
        _html('<span class="pg-or">Or try</span>', elem_classes="pg-fit")
        pieces["examples"] = {
            path: gr.Button(path.stem.replace("-", " ").capitalize(), size="sm", min_width=0)
            for path in sorted((PAGE_ASSETS / "examples").glob("*.opus"))
        }
    with gr.Column(visible=False, elem_id="pg-recording") as pieces["recording"]:
        pieces["description"] = _html("", elem_id="pg-description")
        with gr.Row(elem_id="pg-columns"):
            with gr.Column(scale=7, min_width=320, elem_classes="pg-card"):
                pieces["sound"] = _html("")
                pieces |= _timeline(has_windows=not model.has_tagger)
            with gr.Column(scale=5, min_width=320, elem_classes="pg-card"):
                pieces |= _questions()
    return pieces


def _timeline(*, has_windows: bool) -> dict[str, Any]:
    pieces: dict[str, Any] = {}
    with gr.Row(elem_classes="pg-ask"):
        pieces["window"] = gr.Radio(
            [(f"every {window:g} s", window) for window in WINDOWS_S],
            value=WINDOWS_S[0],
            label="Length of the stretches",
            container=False,
            visible=has_windows,
            elem_id="pg-window",
        )
        pieces["time"] = gr.Button("What happens when?", elem_id="pg-time", min_width=0)
    pieces["stretches"] = _html("", elem_id="pg-stretches")
    return pieces


def _questions() -> dict[str, Any]:
    pieces: dict[str, Any] = {}
    with gr.Tabs(elem_id="pg-questions"):
        with gr.Tab("Ask"):
            pieces["talk"] = _html(views.talk([]), elem_id="pg-talk")
            with gr.Row(elem_classes="pg-chips"):
                pieces["suggestions"] = {text: gr.Button(text, size="sm", min_width=0) for text in SUGGESTIONS}
            with gr.Row(elem_classes="pg-ask"):
                pieces["question"] = gr.Textbox(
                    label="Your question",
                    placeholder="Is it raining?",
                    max_lines=1,
                    max_length=500,
                    elem_id="pg-question",
                )
                pieces["ask"] = gr.Button("Ask", variant="primary", min_width=0, elem_id="pg-ask")
        with gr.Tab("Try labels"):
            with gr.Row(elem_classes="pg-ask"):
                pieces["labels"] = gr.Textbox(
                    label="Labels, separated by commas",
                    placeholder="dog barking, church bells, siren, rain",
                    max_lines=4,
                    max_length=5_000,
                    elem_id="pg-labels",
                )
                pieces["classify"] = gr.Button("Compare", variant="primary", min_width=0, elem_id="pg-classify")
            pieces["ranking"] = _html("", elem_id="pg-ranking")
    return pieces


def _search_tab() -> dict[str, Any]:
    pieces: dict[str, Any] = {}
    with gr.Column(elem_classes="pg-card"):
        with gr.Row(elem_classes="pg-ask"):
            pieces["query"] = gr.Textbox(
                label="Find in the collection",
                placeholder="rain on a tin roof",
                max_lines=1,
                max_length=500,
                elem_id="pg-query",
            )
            pieces["search"] = gr.Button("Search", variant="primary", min_width=0, elem_id="pg-find")
        pieces["similar"] = gr.Button("Find sounds like the open recording", visible=False, elem_id="pg-similar")
        pieces["hits"] = _html("", js_on_load=OPEN_HIT_JS, elem_id="pg-hits")
    return pieces


def _wire(actions: Actions, parts: Components) -> None:
    """Connect components and actions; opening a recording cancels the actions about the previous one."""
    loaded, private = parts.changed_by_loading(), {"api_visibility": "private", "show_progress": "hidden"}
    asking = [parts.turns, parts.talk, parts.question, parts.notice]
    going = [
        gr.on(
            [parts.ask.click, parts.question.submit],
            actions.ask,
            [parts.token, parts.turns, parts.question],
            asking,
            **private,
        ),
        parts.time.click(actions.timeline, [parts.token, parts.window], [parts.stretches, parts.notice], **private),
        gr.on(
            [parts.classify.click, parts.labels.submit],
            actions.classify,
            [parts.token, parts.labels],
            [parts.ranking, parts.notice],
            **private,
        ),
    ]
    for text, button in parts.suggestions.items():
        going.append(button.click(actions.suggested(text), [parts.token, parts.turns], asking, **private))
    opening = {"outputs": loaded, "cancels": going, **private}
    parts.upload.input(actions.load, [parts.upload, parts.token], **opening)
    for path, button in parts.examples.items():
        button.click(actions.example(path), parts.token, **opening)
    if actions.collection is not None:
        finding = [parts.hits, parts.found, parts.notice]
        gr.on([parts.search.click, parts.query.submit], actions.search, parts.query, finding, **private)
        parts.similar.click(actions.search_like, parts.token, finding, **private)
        parts.hits.click(actions.open_hit, [parts.found, parts.token], **opening)


def _theme() -> gr.themes.Base:
    """Colours and fonts of Gradio's components, as in the style sheet; only fonts of the visitor's system are used."""
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="stone", font=FONTS, font_mono=["ui-monospace", "monospace"], radius_size="lg"
    )
    return theme.set(
        body_background_fill="#f6f4ef",
        body_background_fill_dark="#14171a",
        body_text_color="#22272c",
        body_text_color_dark="#e8e6e0",
        block_background_fill="#fffefb",
        block_background_fill_dark="#1b1f23",
        border_color_primary="#e2ded4",
        border_color_primary_dark="#2f353b",
        color_accent="#0f6b68",
        button_primary_background_fill="#0f6b68",
        button_primary_background_fill_hover="#0b5654",
        button_primary_text_color="#ffffff",
        button_primary_background_fill_dark="#74c9bf",
        button_primary_background_fill_hover_dark="#8fd8cf",
        button_primary_text_color_dark="#0d2322",
    )


@contextmanager
def _uploads_in(folder: Path) -> Iterator[None]:
    """Set Gradio's folder for uploads, which it reads from the environment when an app is built."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
