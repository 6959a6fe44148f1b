import './base.css';
import './map.css';
import './inspector.css';
import './views.css';
