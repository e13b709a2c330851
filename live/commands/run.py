"""``python -m live``: the daemon, in the foreground."""

import argparse
import asyncio
import os
from pathlib import Path

from live import logs
from live.config import policy_of, read_config
from live.discovery import discover
from live.kept_faults import KeptFaults
from live.running import run as run_service
from live.service import Service, setting_of


def run(call: argparse.Namespace) -> int:
    """Serve until told to stop."""
    config = read_config(call.config)
    logs.set_up(config.log)
    os.umask(0o077)
    folder = Path() if call.config is None else call.config.parent
    gpus = discover(config.device, kept=KeptFaults(config.data_folder))
    setting = setting_of(config, policy_of(config, folder), gpus)
    asyncio.run(run_service(Service(setting)))
    return 0
