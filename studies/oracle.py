"""A teacher for the simulated world behind an OpenAI-compatible server: it reads the prompt as a careful reader would,
with faults.

    python studies/oracle.py --port 8777                                                  # until Ctrl-C or a TERM signal
    python sft/synthesize.py --teacher teacher=http://127.0.0.1:8777/v1#models/base ...

Used by `studies/signal_to_sft.sh`, where a 32B model would take days. It knows the words of the world but not its
users: all it says is counted from the choices in the prompt, the past summary, or the descriptions to be merged. Of
what it finds, a share is told the wrong way round and a share left out (never what bears on a hint), drawn from the
prompt and the request's seed.
"""

from alignxplore.world.oracle import main

if __name__ == "__main__":
    main()
