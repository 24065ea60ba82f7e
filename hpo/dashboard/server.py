"""The HTTP server of the dashboard."""

import contextlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Mapping
from typing import Any, Final

import waitress.server
from optuna.storages import BaseStorage
from optuna_dashboard import wsgi

from hpo.dashboard.app import DashboardApp
from hpo.dashboard.guard import ENTER, Access, Guard
from hpo.run_folder import RunFolder

ALL_STUDIES: Final = "/dashboard"
NUM_THREADS: Final = 6  # as many as a browser opens connections
MOST_BODY_BYTES: Final = 32 * 2**20  # of a file that --allow-edit lets a page send


class Dashboard:
    """optuna-dashboard behind the guard, at an open socket.

    Args:
        storage: The studies.
        opened: The socket.
        access: Who may do what.
        page: The path of the page that it opens at.
        folders: The run folders that are known, by the study's id.

    Attributes:
        url: The URL of that page.
        link: A URL that lets a browser in, once; None: no token is needed.
    """

    def __init__(
        self,
        storage: BaseStorage,
        opened: socket.socket,
        access: Access,
        page: str = ALL_STUDIES,
        folders: Mapping[int, RunFolder] | None = None,
    ) -> None:
        # waitress would warn of each request that waits for a thread.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        optuna_app = wsgi(storage)
        app = DashboardApp(
            optuna_app, storage, page, dict(folders or {}), may_edit=access.may_edit
        )
        threading.Thread(target=app.prepare, daemon=True).start()
        self._server: Any = waitress.server.create_server(
            Guard(app, optuna_app, access),
            sockets=[opened],
            threads=NUM_THREADS,
            ident=None,
            max_request_body_size=MOST_BODY_BYTES,
            clear_untrusted_proxy_headers=True,
        )
        root = f"http://{_shown_host(access.host)}:{opened.getsockname()[1]}"
        self.url = f"{root}{page}"
        self.link = None if access.token is None else f"{root}{ENTER}?key={access.key}"

    def serve(self) -> None:
        """Answers requests until Ctrl-C, or until `close` is called."""
        self._server.run()

    def close(self) -> None:
        """Ends `serve`, from any thread."""
        # An answer that ends just now may have it closed before it is told to.
        with contextlib.suppress(OSError):
            self._server.trigger.pull_trigger(self._server.close)


def page_of(study_id: int) -> str:
    """The path of a study's page."""
    return f"{ALL_STUDIES}/studies/{study_id}"


def _shown_host(host: str) -> str:
    """How the address is written in a URL; the machine's name, if it stands for all addresses."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            return socket.gethostname()
        return f"[{host}]" if address.version == 6 else host
    return host
