#!/usr/bin/env python3
"""A weather service for one's own machine: GET /weather?city=NAME.   server.py [PORT]"""
import http.server
import json
import sys
import urllib.parse

WEATHER = {'rome': ('sunny', 24), 'oslo': ('snow', -3), 'lima': ('fog', 17), 'beijing': ('clear', 9)}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        city = urllib.parse.parse_qs(url.query).get('city', [''])[0]
        known = WEATHER.get(city.lower())
        if url.path != '/weather' or known is None:
            status, body = 404, {'error': {'message': 'no weather of %r is known' % city}}
        else:
            status, body = 200, {'city': city, 'sky': known[0], 'celsius': known[1]}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1]) if len(sys.argv) > 1 else 8099), Handler)
print('http://127.0.0.1:%d' % server.server_address[1], flush=True)
server.serve_forever()
