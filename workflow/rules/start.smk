"""What is looked at, and set, before the first job starts; and what is said when one has failed."""

from lowdata_cpt.jobs.failures import last_words
from lowdata_cpt.study.checks import hold


onstart:
    hold(STUDY.study)
    offered = workflow.resource_settings.cores
    if (
        workflow.non_local_exec
        and offered is not None
        and offered < RESOURCES.threads
    ):
        # Snakemake would cut every job to so many CPUs, and the thread count decides the last bit of a result.
        raise WorkflowError(
            f"error: resources.threads is {RESOURCES.threads}, but the profile's `cores` allows {offered}; "
            f"expected --cores {RESOURCES.threads} or more"
        )
    # Snakemake 9.27 wakes its scheduler once a second for each job that has ended, to keep below 100 starts a second
    # (JobScheduler._schedule_reevalutation): a hundred jobs in, that is a fifth of a core. Here nothing starts so fast.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


onerror:
    print("", *last_words(log), sep="\n", file=sys.stderr, flush=True)
