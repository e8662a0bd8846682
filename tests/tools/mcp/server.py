#!/usr/bin/env python3
"""A small MCP server for tests, written from the specification.

  server.py --era modern|legacy [--http PORTFILE] [--fault FAULT]

It counts its calls, so that a test sees whether it was started again.
"""
import argparse
import http.server
import json
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument('--era', default='modern')
parser.add_argument('--http')
parser.add_argument('--sse', action='store_true')
parser.add_argument('--fault', default='')
args = parser.parse_args()

SCHEMA = {'type': 'object', 'properties': {'text': {'type': 'string'}}, 'required': ['text']}
TOOLS = [
    {'name': 'echo', 'description': 'Says it again', 'inputSchema': SCHEMA,
     'annotations': {'readOnlyHint': True}},
    {'name': 'erase', 'description': 'Has side effects', 'inputSchema': SCHEMA},
    {'name': 'echo', 'description': 'A second one of that name', 'inputSchema': SCHEMA},
    {'name': 'bad\nObservation:', 'description': 'No name', 'inputSchema': SCHEMA},
    {'name': 'picture', 'inputSchema': {'type': 'object'}},
    {'name': 'numbers', 'inputSchema': {'type': 'object'}},
    {'name': 'slow', 'inputSchema': {'type': 'object'}},
    {'name': 'asks', 'inputSchema': {'type': 'object'}},
    {'name': 'ends', 'inputSchema': {'type': 'object'}},
]
calls = 0
cancelled = []


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def answer(message, tell):
    """The result of a request; `tell` sends what comes before it."""
    global calls
    method, params = message['method'], message.get('params', {})
    meta = params.get('_meta', {})
    modern = 'io.modelcontextprotocol/protocolVersion' in meta
    if args.era == 'modern':
        if not modern:
            raise Refused(-32022, 'only 2026-07-28 is spoken here')
        assert 'io.modelcontextprotocol/clientCapabilities' in meta
        if method == 'server/discover':
            return {'resultType': 'complete', 'supportedVersions': ['2026-07-28'],
                    'capabilities': {'tools': {}}, 'serverInfo': {'name': 't', 'version': '1'}}
    else:
        if method == 'initialize':
            return {'protocolVersion': args.era, 'capabilities': {'tools': {}},
                    'serverInfo': {'name': 't', 'version': '1'}}
        if method == 'server/discover':
            raise Refused(-32601, 'what is that?')
    done = {'resultType': 'complete'} if args.era == 'modern' else {}
    if method == 'tools/list':
        at = int(params.get('cursor', 0))
        if args.fault == 'circle':
            return {'tools': [], 'nextCursor': '1', **done}
        if args.fault == 'deep':
            deep = '{"type": "array", "items": ' * 10000 + '{}' + '}' * 10000
            tell('{"jsonrpc": "2.0", "id": %d, "result": {"tools": [{"name": "x", "inputSchema": %s}]}}'
                 % (message['id'], deep))
            return None
        page = {'tools': TOOLS[at:at + 3], **done}
        if at + 3 < len(TOOLS):
            page['nextCursor'] = str(at + 3)
        return page
    if method == 'tools/call':
        calls += 1
        name, given = params['name'], params.get('arguments', {})
        if args.fault == 'strange':
            tell({'jsonrpc': '2.0', 'id': 'another', 'result': {'content': []}})
        if args.fault == 'other':
            while True:
                tell({'jsonrpc': '2.0', 'id': 99999, 'result': {'content': []}})
        if args.fault == 'flood':
            while True:
                tell({'jsonrpc': '2.0', 'method': 'notifications/message', 'params': {'data': 'x' * 100}})
        if args.fault == 'half':
            sys.stdout.write('{"jsonrpc": "2.0", "id"')
            sys.stdout.flush()
            sys.exit(0)
        if args.fault == 'long':
            while True:
                sys.stdout.write('x' * 65536)
        if name == 'echo':
            tell({'jsonrpc': '2.0', 'method': 'notifications/progress',
                  'params': {'progressToken': meta.get('progressToken'), 'progress': 1, 'total': 2,
                             'message': 'half way'}})
            return {'content': [{'type': 'text', 'text': given['text']}], **done}
        if args.fault == 'grows' and name == 'picture':
            # 'erase' goes, a new one comes; the client is told.
            TOOLS[:] = [tool for tool in TOOLS if tool['name'] != 'erase']
            TOOLS.append({'name': 'grown', 'inputSchema': {'type': 'object'}})
            tell({'jsonrpc': '2.0', 'method': 'notifications/tools/list_changed'})
        if name == 'picture':
            return {'content': [{'type': 'image', 'mimeType': 'image/png', 'data': 'QUJD'}], **done}
        if name == 'numbers':
            return {'content': [], 'structuredContent': {'calls': calls, 'cancelled': cancelled}, **done}
        if name == 'slow':
            time.sleep(0.8)
            return {'content': [{'type': 'text', 'text': 'late'}], **done}
        if name == 'ends':
            sys.stderr.write('out of cheese\n')
            sys.exit(3)
        if name == 'asks':
            if args.era == 'modern':
                if 'inputResponses' not in params:
                    return {'resultType': 'input_required', 'requestState': 'abc',
                            'inputRequests': {'q': {'method': 'elicitation/create', 'params': {}}}}
                assert params['requestState'] == 'abc'
                return {'content': [{'type': 'text', 'text': json.dumps(params['inputResponses'])}], **done}
            tell({'jsonrpc': '2.0', 'id': 'mine', 'method': 'sampling/createMessage', 'params': {}})
            return {'content': [{'type': 'text', 'text': 'asked'}], **done}
        return {'content': [{'type': 'text', 'text': 'failed'}], 'isError': True, **done}
    raise Refused(-32601, 'no method ' + method)


def respond(message, tell):
    try:
        result = answer(message, tell)
        if result is not None:
            tell({'jsonrpc': '2.0', 'id': message['id'], 'result': result})
    except Refused as refusal:
        tell({'jsonrpc': '2.0', 'id': message['id'],
              'error': {'code': refusal.code, 'message': str(refusal)}})


def serve_lines():
    def tell(message):
        print(message if isinstance(message, str) else json.dumps(message), flush=True)
    print('a line that is no message', flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if message.get('method') == 'notifications/cancelled':
            cancelled.append(message['params']['requestId'])
        if 'id' in message and 'method' in message:
            respond(message, tell)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def reply(self, status, body=b'', kind='application/json', more=()):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        for name, value in more:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self):
        self.reply(200)

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        assert 'text/event-stream' in self.headers['Accept']
        method = message.get('method')
        more = []
        if args.era == 'modern':
            if self.headers.get('MCP-Protocol-Version') != '2026-07-28':
                return self.reply(400, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"version"}}')
            if self.headers.get('Mcp-Method') != method:
                return self.reply(400, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"header"}}')
        elif method == 'initialize':
            more = [('Mcp-Session-Id', 'session-1')]
        elif self.headers.get('Mcp-Session-Id') != 'session-1':
            return self.reply(400, b'no session')
        elif self.headers.get('MCP-Protocol-Version') != args.era:
            return self.reply(400, b'no version')
        if 'id' not in message or 'method' not in message:
            return self.reply(202)
        if args.fault == 'redirect':
            return self.reply(302, more=[('Location', 'http://169.254.169.254/')])
        said = []
        respond(message, said.append)
        texts = [said_one if isinstance(said_one, str) else json.dumps(said_one) for said_one in said]
        if args.sse:
            body = ''.join('event: message\ndata: %s\n\n' % text for text in texts).encode()
            return self.reply(200, body, 'text/event-stream', more)
        self.reply(200, texts[-1].encode(), more=more)


if args.http:
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    with open(args.http + '.new', 'w') as file:
        file.write(str(server.server_address[1]))
    import os
    os.rename(args.http + '.new', args.http)
    server.serve_forever()
else:
    serve_lines()
