import { render } from 'preact';
import '../shared/base.css';
import { applySettings, loadSettings } from '../shared/settings';
import { App } from './app';
import './runs.css';

applySettings(loadSettings());
render(<App />, document.getElementById('app')!);
