"""What tests compare of reports."""


def without_seconds(report):
    """All that does not differ from run to run, as data."""
    values = report.to_dict()
    for outcome in values["outcomes"].values():
        del outcome["seconds"]
    return values
