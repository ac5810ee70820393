"""The configuration: every mistake at once with its line, environment overrides, keys pasted from the wizard."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.service_kit.config import ConfigurationError, load_configuration

MINIMAL = """\
state_dir: /var/lib/labferry
equipment:
  - id: CONFOCAL_01
    local_root: /data/lab
    transport: {type: mounted, path: /mnt/nas/CONFOCAL_01}
"""
SPECIFIED = """\
state_dir: /var/lib/labferry
listen: {secrets: "127.0.0.1:7401", lims_gateway: "127.0.0.1:7402", sync_engine: "127.0.0.1:7403"}
event_log: {url: sqlite}
secrets: {backend: auto, passphrase_file: /run/secrets/labferry}
lims: {endpoint: "https://lims.lab.example/api/v1", email: "ops@lab.example", cache_ttl_hours: 24}
equipment:
  - id: CONFOCAL_01
    label: Confocal Microscope 1
    local_root: /data/lab
    nas_root: //nas01/lab
    completeness_signal: sentinel_file
    sentinel_filename: acquisition_complete.flag
    max_parallel: 1
    transport:
      type: mounted
      path: /mnt/nas/lab/CONFOCAL_01
      bandwidth: {upload_mbps: 50, schedule: [{days: [mon, tue], from: "08:00", to: "18:00"}]}
nas_cleanup: {enabled: false, min_verify_passes: 2, min_age_hours: 24, retain_cache: true}
verify: {max_stream_bytes: 1073741824, audit_interval_hours: 24, scrub_interval_days: null}
validator: {content_scan_max_mib: 5, content_scan_extensions: [.txt, .md]}
readme: {defaults: [{id: irb_protocol, label: IRB Protocol Number, type: string, required: false}]}
orchestrator: {label: "", staging_root: "", settle_seconds: 30, staging_cleanup: {mode: manual, retain_hours: 24}}
logging: {level: INFO, format: json}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "labferry.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _mistakes(folder: Path, text: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigurationError) as wrong:
        load_configuration(_write(folder, text), environment)
    return [str(m) for m in wrong.value.mistakes]


def test_the_specified_file_is_taken_as_it_stands(tmp_path: Path) -> None:
    settings = load_configuration(_write(tmp_path, SPECIFIED), {}).settings
    (equipment,) = settings.equipment
    (destination,) = equipment.all_destinations()
    assert (destination.name, destination.required) == ("default", True)
    assert destination.transport.bandwidth.schedule[0].from_ == "08:00"


def test_every_mistake_is_listed_at_its_line(tmp_path: Path) -> None:
    text = MINIMAL.replace("CONFOCAL_01\n", "confocal\n").replace("/data/lab", "data") + "surprise: 1\n"
    assert _mistakes(tmp_path, text) == [
        "line 3: equipment[0].id: must be 1 to 32 capital letters, digits and underscores, beginning with a letter",
        "line 4: equipment[0].local_root: must be an absolute path",
        "line 6: surprise: is not a key of Labferry",
    ]


@pytest.mark.parametrize(
    ("addition", "word"),
    [
        ('listen: {secrets: "0.0.0.0:7401"}', "loopback"),
        ('listen: {secrets: "192.168.1.5:7401"}', "loopback"),
        ('listen: {secrets: "127.0.0.1:7403"}', "share an address"),
        ("lims: {endpoint: 'ftp://x', email: a}", "http"),
        ("lims: {endpoint: 'http://x'}", "email"),
        ("nas_cleanup: {min_verify_passes: 0}", "greater than or equal to 1"),
        ("validator: {content_scan_extensions: [txt]}", "dot"),
        ("state_dir: /x", "twice"),
        ("a: [", "line"),
    ],
)
def test_mistakes_of_many_kinds(tmp_path: Path, addition: str, word: str) -> None:
    assert any(word in m for m in _mistakes(tmp_path, MINIMAL + addition + "\n"))


@pytest.mark.parametrize(
    ("transport", "word"),
    [
        ("{type: rclone, rclone_remote: nas}", "transport.rclone_remote_path: is missing"),
        ("{type: rclone, rclone_remote: 'nas:x', rclone_remote_path: x}", "transport.rclone_remote: "),
        ("{type: rsync_ssh, ssh_target: 'u:hunter2@nas', remote_path: /x}", "transport.ssh_target: must be user@host"),
        ("{type: rsync_ssh, ssh_target: -oProxyCommand=x, remote_path: /x}", "transport.ssh_target: must be user@host"),
        ("{type: rsync_ssh, ssh_target: nas, remote_path: x}", "transport.remote_path: must be an absolute path"),
        ("{type: rsync_ssh, ssh_target: nas, remote_path: /x, ssh_port: 0}", "transport.ssh_port: "),
        ("{type: ftp, path: /x}", "type must be one of mounted, rclone, rsync_ssh"),
        ("{path: /x}", "type is missing"),
        ("{type: rsync_ssh, ssh_target: nas, remote_path: /x, password: hunter2}", "no secret belongs"),
        ("{type: mounted}", "path"),
        ("{type: mounted, path: relative}", "absolute"),
        ('{type: mounted, path: /x, bandwidth: {schedule: [{days: [mon], from: "18:00", to: "08:00"}]}}', "earlier"),
        ('{type: mounted, path: /x, bandwidth: {schedule: [{days: [], from: "8:00", to: "18:00"}]}}', "HH:MM"),
    ],
)
def test_transports_that_can_not_be(tmp_path: Path, transport: str, word: str) -> None:
    text = MINIMAL.replace("{type: mounted, path: /mnt/nas/CONFOCAL_01}", transport)
    mistakes = _mistakes(tmp_path, text)
    assert any(word in m for m in mistakes)
    assert not any("hunter2" in m for m in mistakes)


_WINDOW = '{type: mounted, path: /x, bandwidth: {schedule: [{days: [mon], from: "08:00", to: "18:00"}]}}'


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ('"18:00"', "18:00", ".to: must be text: put it into quotes"),
        ('"08:00"', "8.5", ".from: must be text: put it into quotes"),
        ('"18:00"', "[]", ".to: must be text"),
        ("[mon]", "[monday]", ".days[0]: must be 'mon', 'tue', 'wed', 'thu', 'fri', 'sat' or 'sun'"),
        ("[mon]", "mon", ".days: must be a list"),
        ("[mon]", "[]", ".days: must hold at least 1 entry"),
        ("/x", "7", ".path: must be text: put it into quotes"),
    ],
)
def test_a_value_of_another_kind_is_one_mistake_in_plain_words(
    tmp_path: Path, right: str, wrong: str, said: str
) -> None:
    text = MINIMAL.replace("{type: mounted, path: /mnt/nas/CONFOCAL_01}", _WINDOW.replace(right, wrong))
    (mistake,) = _mistakes(tmp_path, text)
    assert mistake.endswith(said)


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        ("equipment: SFTP_01", "equipment: must be a list"),
        ("equipment: [SFTP_01]", "equipment[0]: must be a mapping of keys"),
        ("listen: 7401", "listen: must be a mapping of keys"),
    ],
)
def test_a_value_in_the_place_of_a_list_or_a_mapping(tmp_path: Path, addition: str, said: str) -> None:
    (mistake,) = _mistakes(tmp_path, f"state_dir: /var/lib/labferry\n{addition}\n")
    assert mistake == f"line 2: {said}"


def test_what_is_wrong_between_keys_is_told_at_the_one_to_change(tmp_path: Path) -> None:
    second = MINIMAL.partition("equipment:\n")[2].replace("/mnt/nas/CONFOCAL_01", "/mnt/nas/other")
    assert _mistakes(tmp_path, MINIMAL + second) == ["line 6: equipment[1].id: CONFOCAL_01 is configured twice"]
    (plaintext,) = _mistakes(tmp_path, MINIMAL + 'listen:\n  secrets: "0.0.0.0:7401"\n')
    assert plaintext.startswith("line 7: listen.secrets: must be a loopback address")
    (plaintext,) = _mistakes(tmp_path, MINIMAL, LABFERRY_LISTEN__SECRETS="0.0.0.0:7401")
    assert plaintext.startswith("listen.secrets (from LABFERRY_LISTEN__SECRETS): must be a loopback address")


def test_the_environment_overrides_and_its_mistakes_name_the_variable(tmp_path: Path) -> None:
    path = _write(tmp_path, MINIMAL)
    environment = {
        "LABFERRY_LIMS__ENDPOINT": "https://lims.example/api/v1",
        "LABFERRY_LIMS__EMAIL": "ops@lab.example",
        "LABFERRY_EQUIPMENT__0__MAX_PARALLEL": "3",
        "LABFERRY_NAS_CLEANUP__ENABLED": "true",
        "LABFERRY_TOKEN_FILE": "/not/a/key",
    }
    settings = load_configuration(path, environment).settings
    assert settings.lims.endpoint == "https://lims.example/api/v1"
    assert settings.equipment[0].max_parallel == 3
    assert settings.nas_cleanup.enabled
    wrong = _mistakes(tmp_path, MINIMAL, LABFERRY_EQUIPMENT__0__MAX_PARALLEL="many")
    assert any("LABFERRY_EQUIPMENT__0__MAX_PARALLEL" in m for m in wrong)


def test_keys_of_the_wizard_are_mapped_or_noticed(tmp_path: Path) -> None:
    text = """\
state_dir: /var/lib/labferry
paths: {templates_dir: /t, plugin_dir: /p, local_root: /data/lab}
operators: {allowlist: [a]}
sync: {enabled: true, retry_attempts: 5}
logging: {level: WARN, central_log_max_mb: 5}
orchestrator: {enabled: true}
equipment:
  - {id: A, sync_mode: nas, transport: {type: mounted, path: /nas/A}}
  - {id: B, sync_mode: stage}
"""
    loaded = load_configuration(_write(tmp_path, text), {})
    assert [e.id for e in loaded.settings.equipment] == ["A"]
    assert loaded.settings.equipment[0].local_root == Path("/data/lab")
    assert any("sync_mode stage" in n for n in loaded.notices)
    assert len(loaded.notices) == 8


def test_staging_needs_an_absolute_root_and_the_name_of_its_signal(tmp_path: Path) -> None:
    text = """\
state_dir: /var/lib/labferry
orchestrator: {staging_root: staging, settle_seconds: -1, staging_cleanup: {mode: now, retain_hours: 0}}
equipment:
  - {id: A, local_root: /data, completeness_signal: manifest, transport: {type: mounted, path: /nas/A}}
  - {id: B, local_root: /data, sentinel_filename: ../flag, transport: {type: mounted, path: /nas/B}}
"""
    mistakes = "\n".join(_mistakes(tmp_path, text))
    for key in (
        "orchestrator.staging_root: must be an absolute path",
        "orchestrator.settle_seconds",
        "orchestrator.staging_cleanup.mode",
        "orchestrator.staging_cleanup.retain_hours",
        "equipment[0]: completeness_signal manifest needs manifest_filename",
        "equipment[1].sentinel_filename: must be a path relative to the run",
    ):
        assert key in mistakes, key
    served = load_configuration(
        _write(
            tmp_path,
            text.replace(
                "staging_root: staging, settle_seconds: -1, staging_cleanup: {mode: now, retain_hours: 0}",
                "staging_root: /data/staging",
            )
            .replace("completeness_signal: manifest, ", "")
            .replace("sentinel_filename: ../flag, ", ""),
        ),
        {},
    )
    assert served.settings.orchestrator.staging_folder == Path("/data/staging")
    assert served.notices == (), "what is set is served"


def test_a_yaml_bomb_is_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert any("too large" in m for m in _mistakes(tmp_path, MINIMAL + "\n".join(lines)))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_configuration(tmp_path / "nope.yaml", {})
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\xff")
        load_configuration(tmp_path / "x.yaml", {})
    with pytest.raises(ConfigurationError, match="mapping"):
        load_configuration(_write(tmp_path, "- 1\n"), {})


def test_the_secrets_listen_on_a_socket_of_their_own_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "labferry.yaml"
    path.write_text("state_dir: /var/lib/labferry\n", encoding="utf-8")
    settings = load_configuration(path, {}).settings
    assert settings.listens_at("secrets") == "unix:/var/lib/labferry/secrets/secrets.sock"
    assert settings.reached_at("secrets") == settings.listens_at("secrets")
    path.write_text('state_dir: /x\nlisten: {secrets: "127.0.0.1:7401"}\n', encoding="utf-8")
    assert load_configuration(path, {}).settings.listens_at("secrets") == "127.0.0.1:7401"


@pytest.mark.parametrize(
    "path", ["/data/lab", "/data/lab/CONFOCAL_01", "/data", "/", "/data/lab/../lab/x", "/data/./lab//CONFOCAL_01"]
)
def test_a_destination_and_the_source_never_lie_in_each_other(tmp_path: Path, path: str) -> None:
    (said,) = _mistakes(tmp_path, MINIMAL.replace("/mnt/nas/CONFOCAL_01", path))
    assert said.startswith("line 3: equipment[0]: ")
    assert "a copy there would be the run itself" in said


def test_a_path_that_only_begins_like_the_source_is_another(tmp_path: Path) -> None:
    load_configuration(_write(tmp_path, MINIMAL.replace("/mnt/nas/CONFOCAL_01", "/data/lab-nas")), {})


_RSYNC = "type: rsync_ssh, ssh_target: lab@nas01"
_RCLONE = "type: rclone, rclone_remote: nas"


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("type: mounted, path: /mnt/a", "type: mounted, path: /mnt/a/", True),
        ("type: mounted, path: /mnt/a", "type: mounted, path: /mnt/a/below", True),
        ("type: mounted, path: /mnt/a", "type: mounted, path: /mnt/ab", False),
        (f"{_RSYNC}, remote_path: /a", f"{_RSYNC}, remote_path: /a, bandwidth: {{upload_mbps: 5}}", True),
        (f"{_RSYNC}, remote_path: /a", f"{_RSYNC}, remote_path: /b", False),
        (f"{_RCLONE}, rclone_remote_path: a", f"{_RCLONE}, rclone_remote_path: a", True),
        (f"{_RCLONE}, rclone_remote_path: a", f"{_RCLONE}, rclone_remote_path: b", False),
        (f"{_RCLONE}, rclone_remote_path: a", f"{_RCLONE}, rclone_remote_path: a/below", True),
        (f"{_RCLONE}, rclone_remote_path: lab/Ärzte", f"{_RCLONE}, rclone_remote_path: LAB/a\u0308rzte", True),
        (f"{_RSYNC}, remote_path: /a/below", f"{_RSYNC}, remote_path: /a", True),
        (f"{_RCLONE}, rclone_remote_path: /a", f"{_RSYNC}, remote_path: /a", False),
    ],
)
def test_one_place_is_not_two_destinations(tmp_path: Path, one: str, other: str, are_one: bool) -> None:
    both = MINIMAL.replace("{type: mounted, path: /mnt/nas/CONFOCAL_01}", f"{{{one}}}")
    second = both.replace("CONFOCAL_01", "CONFOCAL_02").replace(one, other).partition("equipment:\n")[2]
    if are_one:
        (said,) = _mistakes(tmp_path, both + second)
        assert "their runs would meet there" in said
    else:
        load_configuration(_write(tmp_path, both + second), {})
    two = f"destinations: [{{name: one, transport: {{{one}}}}}, {{name: other, transport: {{{other}}}}}]"
    text = MINIMAL.replace("transport: {type: mounted, path: /mnt/nas/CONFOCAL_01}", two)
    if are_one:
        (said,) = _mistakes(tmp_path, text)
        assert "destinations one and other are one place" in said
    else:
        load_configuration(_write(tmp_path, text), {})
