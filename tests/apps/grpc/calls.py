"""A gRPC service without generated code, and calls to it: `calls.py serve`, `calls.py call ADDRESS CERTIFICATE`."""

import queue
import sys
from concurrent import futures

import grpc


def echo(request, context):
    context.set_trailing_metadata((("told", "at the end"),))
    if request == b"nothing":
        context.abort(grpc.StatusCode.NOT_FOUND, "there is none")
    return b"echo " + request


def echo_each(requests, _context):
    for request in requests:
        yield b"echo " + request


class Service(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/shop.Echo/One":
            return grpc.unary_unary_rpc_method_handler(echo)
        if call.method == "/shop.Echo/Each":
            return grpc.stream_stream_rpc_method_handler(echo_each)
        return None


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Service(),))
    print("port", server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def call(address, certificate):
    with open(certificate, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    with grpc.secure_channel(address, credentials) as channel:
        one = channel.unary_unary("/shop.Echo/One")
        answer, told = one.with_call(b"hello", timeout=20)
        print(answer.decode(), dict(told.trailing_metadata())["told"], told.code().name)
        try:
            one(b"nothing", timeout=20)
        except grpc.RpcError as error:
            print(error.code().name, error.details())
        # Each answer comes before the next request goes: neither side is held back until the other has ended.
        requests = queue.Queue()
        answers = channel.stream_stream("/shop.Echo/Each")(iter(requests.get, None), timeout=20)
        for number in range(3):
            requests.put(f"request {number}".encode())
            print(next(answers).decode())
        requests.put(None)
        print(len(list(answers)))


if sys.argv[1] == "serve":
    serve()
else:
    call(*sys.argv[2:])
