"""The servers that the functional tests stand on are real and empty."""

import redis


def test_server_is_real_and_empty(each_redis_url):
    """Each test starts on an empty, real server, on every server that we say we work with."""
    with redis.Redis.from_url(each_redis_url, decode_responses=True) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")
        assert client.eval("return redis.call('TIME')[1]", 0)


def test_broker_of_this_process_talks_to_the_test_server(redis_url, redis_client):
    """Messages sent in a test land on the server of that test."""
    from astrid_workers.broker import send

    send("nobody", "nowhere", 1)
    assert redis_client.llen("dramatiq:nowhere") == 1
