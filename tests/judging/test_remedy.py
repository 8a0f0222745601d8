"""What is said of a server that cannot be asked for letters."""

import pytest
from aiohttp import web

from alignxplore.judging.judgement import JudgeError
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint


@pytest.mark.parametrize(("options", "end"), [({}, "or have its .*: --judge_format"), ({"remedy": ""}, "with vLLM")])
async def test_the_remedy_is_one_that_the_command_has(fake_server, tokenizer, options, end):
    def refuse(_):
        return web.Response(status=400, text="Unexpected field: continue_final_message")

    async with fake_server(refuse) as server, Endpoint(server.url) as endpoint:
        with pytest.raises(JudgeError, match=f"{end}$"):
            await Judge(endpoint, tokenizer, PromptSet(), **options).check([("s", Interaction("a", "b"))])
