"""The command line: `python run_search.py COMMAND`; `--help` lists the commands."""

from hpo.cli.app import main

if __name__ == "__main__":
    main()
