"""In place of a cluster: Snakemake's plugins for SLURM and others, and the commands that these call.

What is submitted runs here, at once. ``cluster/`` in the working directory keeps, by the job's name, what was asked of
the cluster and how the job ended.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

SBATCH = (
    "sbatch --partition={resources.slurm_partition} --time={resources.runtime} "
    "--mem={resources.mem_mb} --cpus-per-task={threads} --gpus={resources.gpu}"
)
"""What the plugin for SLURM makes of a job's resources."""


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """The settings of cluster-generic, which are SLURM's commands where none are given."""

    submit_cmd: str = field(default=SBATCH, metadata={"help": "how to submit"})
    status_cmd: str = field(default="squeue", metadata={"help": "how to ask for a job's status"})
    cancel_cmd: str = field(default="scancel", metadata={"help": "how to cancel jobs"})


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=True,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)


class Executor(RemoteExecutor):
    """Submits each job's script, as cluster-generic does, and asks how it fares."""

    def run_job(self, job):
        script = self.get_jobscript(job)
        self.write_jobscript(job, script)
        command = job.format_wildcards(self.workflow.executor_settings.submit_cmd)
        name = subprocess.check_output(f'{command} "{script}"', shell=True, text=True).strip()
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=name))

    async def check_active_jobs(self, active_jobs):
        for job in active_jobs:
            command = f"{self.workflow.executor_settings.status_cmd} {job.external_jobid}"
            match subprocess.check_output(command, shell=True, text=True).strip():
                case "success":
                    self.report_job_success(job)
                case "failed":
                    self.report_job_error(job)
                case _:
                    yield job

    def cancel_jobs(self, active_jobs):
        names = " ".join(job.external_jobid for job in active_jobs)
        subprocess.run(f"{self.workflow.executor_settings.cancel_cmd} {names}", shell=True)


def start(name, asked, words, **where):
    """Run a job, and keep what was asked for it."""
    folder = Path("cluster").absolute()
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(asked))
    ended = f'"$@" > "{folder}/{name}.log" 2>&1; echo $? > "{folder}/{name}.code"'
    subprocess.Popen(
        ["sh", "-c", ended, "job", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **where,
    )


def status(name):
    """How a job has ended: "success" or "failed"; None while it runs."""
    code = Path("cluster") / f"{name}.code"
    ended = code.read_text().strip() if code.exists() else ""
    return {"": None, "0": "success"}.get(ended, "failed")


def main(command, *arguments):
    """Be sbatch, squeue or kubectl."""
    number = len([*Path("cluster").glob("*.json")])
    if command == "sbatch":
        *options, script = arguments
        asked = dict(option.removeprefix("--").split("=") for option in options)
        start(f"slurm-{number}", asked, ["sh", script])
        print(f"slurm-{number}")
    elif command == "squeue":
        print(status(*arguments) or "running")
    elif arguments[0] == "create":
        asked = yaml.safe_load(sys.stdin)
        name = f"{asked['metadata']['generateName']}{number}"
        (container,) = asked["spec"]["template"]["spec"]["containers"]
        environment = os.environ | {entry["name"]: entry["value"] for entry in container["env"]}
        start(name, asked, container["command"], cwd=container["workingDir"], env=environment)
        print(f"job.batch/{name}")
    elif arguments[0] == "get":
        name = arguments[1].removeprefix("job.batch/")
        types = {"success": "SuccessCriteriaMet Complete", "failed": "FailureTarget Failed"}
        print(name, types.get(status(name), ""))


if __name__ == "__main__":
    main(*sys.argv[1:])
