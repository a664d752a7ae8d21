"""``medseg check``."""

from __future__ import annotations

import argparse

HELP = "Check a datalist (every case is read once) or a bundle, and list all problems with their remedies."


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--json_list", metavar="FILE", help="datalist")
    what.add_argument("--bundle", metavar="DIR", help="run or bundle: files, metadata, configs, network, TorchScript")
    parser.add_argument(
        "--data_dir", metavar="DIR", help="what the datalist's paths are relative to (default: its folder)"
    )
    parser.add_argument(
        "--fold", type=int, metavar="K", help="also check that each label occurs in this fold's training cases"
    )
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")


def run(args: argparse.Namespace) -> int:
    if args.bundle is not None:
        return _check_bundle(args.bundle, args.strict)
    from medseg.bundle.configs import train_config
    from medseg.data import PlanSettings, make_plan
    from medseg.data.run_settings import settings_of
    from medseg.networks import network_target
    from medseg.workflows.checks import check_datalist

    datalist, training, facts = check_datalist(args.json_list, args.data_dir, fold=args.fold, strict=args.strict)
    print(f"{len(facts)} cases are sound. A plan for this machine's CPU:")
    plan = make_plan(datalist, facts, PlanSettings(num_training=len(training)))
    config = train_config(
        {"_target_": network_target("SegResNet")}, datalist, plan
    )  # any: networks are not planned here
    settings = [s for s in settings_of(config, plan.reasons_by_id()) if s.reason and not s.id.startswith("network_def")]
    print("\n".join(setting.line() for setting in settings))
    return 0


def _check_bundle(bundle: str, strict: bool) -> int:
    from medseg.bundle.verify import verify_bundle
    from medseg.errors import ModelError
    from medseg.workflows.checks import problem_table

    problems = verify_bundle(bundle)
    errors = [problem for problem in problems if strict or not problem.warning]
    if errors:
        raise ModelError(f"{bundle} is no sound bundle:\n{problem_table(errors)}")
    if problems:
        print(problem_table(problems))
    print(f"{bundle} is a sound bundle.")
    return 0
